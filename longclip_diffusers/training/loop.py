"""One optimisation loop for every stage: seeded batches, cosine schedule, averaged weights, exact resume."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..errors import LongClipError
from .checkpointing import load_state, save_state

__all__ = ["Schedule", "Step", "optimise"]

SECONDS_BETWEEN_SAVES = 60.0


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage trains: `steps` of AdamW, linear warm-up, cosine to `floor` of the peak rate."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup: int = 50
    floor: float = 0.03
    weight_decay: float = 0.0
    averaging: float = 0.0  # decay of the averaged weights a step; 0 keeps the last weights
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0

    def rate(self, step: int) -> float:
        """Learning rate of step 1 to `steps`."""
        if step <= self.warmup:
            return self.learning_rate * step / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress)))


@dataclass(frozen=True)
class Step:
    """One optimiser step: its number from 1, the loss before it and its learning rate."""

    step: int
    loss: float
    learning_rate: float


def optimise(module: nn.Module, loss_of: Callable[[int], Tensor], schedule: Schedule, state: Path) -> Iterator[Step]:
    """Train `module` in place, one yielded `Step` at a time; at the end it holds the averaged weights, if any.

    Args:
        loss_of: scalar loss of a step's batch; it draws the batch from the step's number alone, so that a resumed
            run sees what an uninterrupted one would have seen.
        state: safetensors file with weights and optimiser, written every minute and at the end. Where it exists,
            training goes on from there.

    Raises:
        LongClipError: the loss is NaN or infinite.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, schedule.learning_rate, schedule.betas, weight_decay=schedule.weight_decay)
    averaged = (
        AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(schedule.averaging)) if schedule.averaging else None
    )
    done = load_state(state, module, averaged, optimiser)
    saved = time.monotonic()
    for step in range(done + 1, schedule.steps + 1):
        rate = schedule.rate(step)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = loss_of(step)
        if not torch.isfinite(loss):
            raise LongClipError(
                f"The loss became {loss.item()} at step {step}. Lower the learning rate and start anew."
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, schedule.clip)
        optimiser.step()
        optimiser.zero_grad()
        if averaged is not None:
            averaged.update_parameters(module)
        yield Step(step, loss.item(), rate)
        if step == schedule.steps or time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
            save_state(state, module, averaged, optimiser, step)
            saved = time.monotonic()
    if averaged is not None:
        module.load_state_dict(averaged.module.state_dict())
