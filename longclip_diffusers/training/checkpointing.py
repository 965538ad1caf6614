"""A training's state as one safetensors file: weights, averages, optimiser, step; written whole or not at all."""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..errors import CheckpointError

__all__ = ["load_state", "save_state"]


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor.detach().clone() for name, tensor in tensors.items()}


def _without_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def save_state(
    path: Path, module: nn.Module, averaged: AveragedModel | None, optimiser: torch.optim.Optimizer, step: int
) -> None:
    """Write everything a resumed run needs, first beside `path`, then renamed onto it."""
    tensors = _with_prefix(module.state_dict(), "module.")
    if averaged is not None:
        tensors |= _with_prefix(averaged.state_dict(), "averaged.")
    for index, entry in optimiser.state_dict()["state"].items():
        tensors |= _with_prefix(entry, f"optimiser.{index}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    save_file(tensors, unfinished, metadata={"step": str(step)})
    unfinished.replace(path)


def load_state(path: Path, module: nn.Module, averaged: AveragedModel | None, optimiser: torch.optim.Optimizer) -> int:
    """Restore what `save_state` wrote, in place, and return the number of steps done; 0 where `path` does not exist.

    Raises:
        CheckpointError: the file is damaged or belongs to another model.
    """
    if not path.is_file():
        return 0
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            step = int(file.metadata()["step"])
        module.load_state_dict(_without_prefix(tensors, "module."))
        if averaged is not None:
            averaged.load_state_dict(_without_prefix(tensors, "averaged."))
        entries = _without_prefix(tensors, "optimiser.")
        indices = {int(name.split(".")[0]) for name in entries}
        restored = {index: _without_prefix(entries, f"{index}.") for index in indices}
        optimiser.load_state_dict({**optimiser.state_dict(), "state": restored})
    except Exception as error:  # safetensors and torch each have their own kinds; all mean the same here
        raise CheckpointError(
            f"{path} cannot be resumed from ({error}). It is damaged or of another recipe; delete it to begin anew."
        ) from error
    return step
