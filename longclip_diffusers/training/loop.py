"""One optimisation loop for every training: seeded steps, cosine schedule, averaged weights, exact resume."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..errors import LongClipError
from .checkpointing import Checkpoints, State

__all__ = ["Schedule", "Step", "optimise", "optimise_state", "prepare_state"]

# Muon's rate beside AdamW's. An update as large as AdamW's (RMS, arXiv 2502.16982) is orthogonal and bears more.
MUON_RATE = 3.0


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage trains: `steps`, linear warm-up, cosine to `floor` of the peak rate.

    `optimizer`: "adamw" for all; or "muon" (Keller Jordan, 2024) for the weights of linear layers, at `MUON_RATE` times
    the rate, and AdamW for the rest.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup: int = 50
    floor: float = 0.03
    weight_decay: float = 0.0
    averaging: float = 0.0  # decay of the averaged weights a step; 0 keeps the last weights
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    shares: int = 1  # of a batch, computed side by side by `optimise`
    optimizer: Literal["adamw", "muon"] = "adamw"

    def __post_init__(self) -> None:
        if self.batch_size % self.shares:
            raise ValueError(f"a batch of {self.batch_size} has no {self.shares} equal shares")

    @property
    def share_size(self) -> int:
        """Samples in a share of a batch."""
        return self.batch_size // self.shares

    def rate(self, step: int) -> float:
        """Learning rate of step 1 to `steps`."""
        if step <= self.warmup:
            return self.learning_rate * step / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress)))


@dataclass(frozen=True)
class Step:
    """One optimiser step: its number from 1, the loss before it, its learning rate, and what else was measured."""

    step: int
    loss: float
    learning_rate: float
    measured: Mapping[str, Any] = field(default_factory=dict)


def prepare_state(
    module: nn.Module, schedule: Schedule, *, groups: Sequence[dict[str, Any]] | None = None, fused: bool = False
) -> State:
    """The module with its optimiser and, where the schedule averages, the averaged weights.

    Args:
        groups: parameter groups; all that requires a gradient, with the schedule's decay, if not given.
            A linear layer's weights go to Muon where the schedule says so, whatever group they are in.
        fused: AdamW's fused kernel, for CUDA.

    Raises:
        LongClipError: this torch has no Muon.
    """
    trained = groups or [{"params": [each for each in module.parameters() if each.requires_grad]}]
    matrices = _linear_weights(module) if schedule.optimizer == "muon" else set()
    rest, muons = _split(trained, matrices)
    optimisers: dict[str, torch.optim.Optimizer] = {
        "adamw": torch.optim.AdamW(
            rest, schedule.learning_rate, schedule.betas, weight_decay=schedule.weight_decay, fused=fused or None
        )
    }
    if muons:
        optimisers["muon"] = torch.optim.Muon(
            [{**group, "scale": MUON_RATE} for group in muons],
            schedule.learning_rate,
            schedule.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
    average = get_ema_multi_avg_fn(schedule.averaging) if schedule.averaging else None
    return State(module, optimisers, AveragedModel(module, multi_avg_fn=average) if average else None)


def _linear_weights(module: nn.Module) -> set[int]:
    if not hasattr(torch.optim, "Muon"):
        raise LongClipError(f"optimizer 'muon' needs torch 2.9 or later, this is {torch.__version__}; choose adamw.")
    return {id(part.weight) for part in module.modules() if isinstance(part, nn.Linear)}


def _split(groups: Sequence[dict[str, Any]], matrices: set[int]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The groups without the chosen parameters, and with them alone."""
    parts: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for group in groups:
        for part, chosen in zip(parts, (False, True), strict=True):
            params = [each for each in group["params"] if (id(each) in matrices) is chosen]
            if params or not chosen:
                part.append({**group, "params": params})
    return parts


def optimise_state(
    state: State,
    backward: Callable[[int], Mapping[str, Any]],
    schedule: Schedule,
    checkpoints: Checkpoints,
    *,
    constrain: Callable[[], None] = lambda: None,
    writes: bool = True,
) -> Iterator[Step]:
    """Train from `state.step` to the end, one yielded `Step` at a time; then the module holds the averages, if any.

    Args:
        backward: computes a step's gradients and returns what it measured, `loss` among it. It draws its batch from
            the step's number alone, so that a resumed run sees what an uninterrupted one would have seen.
        constrain: called after each step, to put back what must not change.
        writes: whether this process saves; the first of several does.

    What the caller changes in `state.notes` while it holds a step is saved with that step.

    Raises:
        LongClipError: the loss is NaN or infinite, or a checkpoint cannot be written.
    """
    groups = [group for optimiser in state.optimisers.values() for group in optimiser.param_groups]
    trained = [parameter for group in groups for parameter in group["params"]]
    for step in range(state.step + 1, schedule.steps + 1):
        rate = schedule.rate(step)
        for group in groups:
            group["lr"] = rate * group.get("scale", 1.0)
        measured = backward(step)
        if not math.isfinite(measured["loss"]):
            raise LongClipError(
                f"The loss became {measured['loss']} at step {step}. Lower the learning rate and start anew."
            )
        torch.nn.utils.clip_grad_norm_(trained, schedule.clip)
        for optimiser in state.optimisers.values():
            optimiser.step()
            optimiser.zero_grad()
        constrain()
        if state.averaged is not None:
            state.averaged.update_parameters(state.module)
        state.step = step
        yield Step(step, measured["loss"], rate, measured)
        if writes and (step == schedule.steps or checkpoints.due()):
            checkpoints.save(state)
    if state.averaged is not None:
        state.module.load_state_dict(state.averaged.module.state_dict())


def optimise(module: nn.Module, loss_of: Callable[[int], Tensor], schedule: Schedule, folder: Path) -> Iterator[Step]:
    """Train `module` in place on a loss that fits in memory as a whole; goes on where `folder` holds checkpoints.

    Args:
        loss_of: the loss of a share of a step's batch, called with step * shares, step * shares + 1 ... With several
            shares it must draw from a generator of its own: each has a thread (torch lets go of Python's lock while it
            computes). Their gradients are averaged, to the same bits on any number of cores.
    """
    shares = schedule.shares
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]

    def gradient(number: int) -> tuple[float, tuple[Tensor | None, ...]]:
        loss = loss_of(number)
        return loss.item(), torch.autograd.grad(loss, trained, allow_unused=True)

    def backward(step: int) -> dict[str, float]:
        losses, gradients = zip(*pool.map(gradient, range(step * shares, (step + 1) * shares)), strict=True)
        for parameter, parts in zip(trained, zip(*gradients, strict=True), strict=True):
            used = [part for part in parts if part is not None]
            parameter.grad = torch.stack(used).sum(0) / shares if used else None
        return {"loss": sum(losses) / shares}

    checkpoints = Checkpoints(folder)
    state = prepare_state(module, schedule)
    checkpoints.restore(state)
    with ThreadPoolExecutor(shares) as pool:
        yield from optimise_state(state, backward, schedule, checkpoints)
