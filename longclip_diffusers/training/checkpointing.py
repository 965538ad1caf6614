"""A training's state as safetensors files: weights, averages, optimiser, notes; each written whole or not at all."""

import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from ..errors import CheckpointError, LongClipError

__all__ = ["Checkpoints", "State"]

KEPT = 2  # the newest and, should it turn out damaged, the one before
SECONDS_BETWEEN_SAVES = 60.0
# A large model takes minutes to write: saving is to take at most a twentieth of the time.
SHARE_OF_TIME = 20


@dataclass
class State:
    """What a step changes; optimisers by name. `notes` are the caller's own, anything JSON holds; they come back on
    resuming."""

    module: nn.Module
    optimisers: Mapping[str, Optimizer]
    averaged: AveragedModel | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    step: int = 0


@dataclass
class Checkpoints:
    """The folder of one run's checkpoints, `step-00000123.safetensors`; the newest two are kept."""

    folder: Path
    _due: float = 0.0

    def __post_init__(self) -> None:
        self._due = time.monotonic() + SECONDS_BETWEEN_SAVES

    @property
    def files(self) -> list[Path]:
        """The checkpoints there are, oldest first."""
        return sorted(self.folder.glob("step-*.safetensors"))

    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() >= self._due

    def save(self, state: State) -> None:
        """Write everything a resumed run needs, first beside its name, then renamed; older ones go after that.

        Raises:
            LongClipError: it cannot be written (disk full, no permission); the checkpoints before it are untouched.
        """
        began = time.monotonic()
        path = self.folder / f"step-{state.step:08d}.safetensors"
        unfinished = path.with_suffix(".unfinished")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(_tensors(state), unfinished, metadata={"notes": json.dumps(state.notes), "step": str(state.step)})
            unfinished.replace(path)
        except (OSError, SafetensorError) as error:
            unfinished.unlink(missing_ok=True)
            before = f"; {self.files[-1].name} is the last good one" if self.files else ""
            raise LongClipError(
                f"{path} cannot be written: {error}{before}. Make room and start again with the same command."
            ) from error
        for old in self.files[:-KEPT]:
            old.unlink()
        now = time.monotonic()
        self._due = now + max(SECONDS_BETWEEN_SAVES, SHARE_OF_TIME * (now - began))

    def restore(self, state: State) -> None:
        """Put the newest checkpoint that can be read into `state`, in place; nothing where there is none.

        A damaged one is passed over with a UserWarning for the one before it.

        Raises:
            CheckpointError: there are checkpoints, and none can be read.
        """
        files, reasons = self.files, []
        for path in reversed(files):
            try:
                _restore(path, state)
                return
            except Exception as error:  # safetensors, JSON and torch each have their own kinds; all mean the same here
                reasons.append(f"{path.name}: {error}")
                if path != files[0]:
                    warnings.warn(f"{path} cannot be resumed from ({error}); the one before it is taken.", stacklevel=2)
        if reasons:
            raise CheckpointError(
                f"No checkpoint in {self.folder} can be resumed from ({'; '.join(reasons)}). They are damaged or of "
                "another model; delete the folder to begin anew."
            )


def _tensors(state: State) -> dict[str, Tensor]:
    tensors = _with_prefix(state.module.state_dict(), "module.")
    if state.averaged is not None:
        tensors |= _with_prefix(state.averaged.state_dict(), "averaged.")
    for name, optimiser in state.optimisers.items():
        for index, entry in optimiser.state_dict()["state"].items():
            tensors |= _with_prefix(entry, f"{name}.{index}.")
    return tensors


def _restore(path: Path, state: State) -> None:
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        notes = file.metadata()
    state.module.load_state_dict(_without_prefix(tensors, "module."))
    if state.averaged is not None:
        state.averaged.load_state_dict(_without_prefix(tensors, "averaged."))
    for name, optimiser in state.optimisers.items():
        entries = _without_prefix(tensors, f"{name}.")
        indices = {int(entry.split(".")[0]) for entry in entries}
        restored = {index: _without_prefix(entries, f"{index}.") for index in indices}
        optimiser.load_state_dict({**optimiser.state_dict(), "state": restored})
    state.notes.clear()
    state.notes.update(json.loads(notes["notes"]))
    state.step = int(notes["step"])


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    # Copies: two names of one memory, which a state dict may hold, are more than safetensors writes.
    return {prefix + name: tensor.detach().clone() for name, tensor in tensors.items()}


def _without_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
