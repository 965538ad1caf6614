"""What a recipe will take, before it runs: parameters, memory, and time from a few samples really computed."""

import time
import warnings
from collections.abc import Callable
from dataclasses import replace

import torch

from .finetune import Run
from .memory import step_memory
from .recipe import Recipe

__all__ = ["estimate"]

# Samples that the timing computes: enough to fill a chunk, few enough for a large model on a CPU.
NUM_TIMED = 8


def estimate(recipe: Recipe, *, device: str = "cpu") -> str:
    """A report of what `longclip train` would do with a recipe; it writes nothing.

    The time is that of `NUM_TIMED` samples, computed here and scaled to the whole run, without evaluations.

    Raises:
        LongClipError: as `fine_tune`, where base, data and recipe do not fit each other.
    """
    run = Run.open(recipe, torch.device(device))
    parameters = list(run.subject.module.parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    memory = step_memory(run.subject.module, recipe, run.micro_batch, run.order.local_batch_size)
    seconds = _seconds(run) / run.order.num_processes
    steps = (
        f"{recipe.steps:,} of {recipe.batch_size:,} samples, {recipe.batch_size // run.order.num_processes:,} a process"
    )
    lines = {
        "base": f"{recipe.source}, {run.subject.length} positions",
        "data": f"{run.data.name}: {len(run.data):,} samples, {len(run.validation.samples):,} held out",
        "objective": _phases(recipe),
        "parameters": f"{sum(parameter.numel() for parameter in parameters):,}, {trained:,} of them trained",
        "steps": f"{steps}; {recipe.steps * recipe.batch_size / len(run.data):.2f} epochs",
        "micro batch": f"{run.micro_batch:,} samples encoded at once",
        "memory": f"about {memory / 2**30:.1f} GiB a process at the height of a step",
        "time": f"about {_duration(seconds)} on {device}, without evaluations",
    }
    return "\n".join(f"{name.ljust(12)}{value}" for name, value in lines.items())


def _phases(recipe: Recipe) -> str:
    if recipe.objective != "both":
        return recipe.objective
    alone = recipe.first_contrastive_step - 1
    return f"both: the anchor alone for {alone:,} steps, then with contrastive losses for {recipe.steps - alone:,}"


def _seconds(run: Run) -> float:
    """Seconds that one process would need for the whole run."""
    recipe = run.recipe
    num_timed = min(NUM_TIMED, recipe.batch_size)
    small = replace(recipe, batch_size=num_timed, anchor_batch=num_timed, micro_batch=min(run.micro_batch, num_timed))
    timed = replace(run, recipe=small, order=replace(run.order, batch_size=num_timed, rank=0, num_processes=1))
    batch = next(timed.batches(recipe.first_contrastive_step))  # the first with all that any step needs
    total = 0.0
    if recipe.uses_anchor:
        total += recipe.steps * recipe.anchor_samples * _timed(lambda: timed.anchor_step(batch)) / num_timed
    if recipe.uses_images:
        steps = recipe.steps + 1 - recipe.first_contrastive_step
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that PCM does nothing to so few samples
            total += steps * recipe.batch_size * _timed(lambda: timed.contrastive_step(batch, 1.0)) / num_timed
    return total


def _timed(work: Callable[[], object]) -> float:
    work()  # the first call of anything is slow
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
