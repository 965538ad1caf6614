"""What encoding costs each way, side by side, and beside a step of the UNet."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from .. import encoding
from ..encoding import measured
from ..report import Row
from .pipes import Pipes
from .ways import Way

__all__ = ["ENCODERS", "UNET_STEP", "cost_rows", "time_ways"]

UNET_STEP = "unet_step"
# Sizes of the text encoder that goes with a UNet's shape.
ENCODERS = {"sd15": encoding.ENCODERS["clip-l"], "tiny": encoding.ENCODERS["tiny"]}
WARM_UP = "A red boat. " * 40  # two windows: the first call of anything is slow


@torch.no_grad()
def time_ways(
    ways: Sequence[Way],
    pipes: Pipes,
    prompt: str,
    *,
    repeats: int,
    others: Mapping[str, Callable[[], None]] | None = None,
) -> Iterator[dict[str, float]]:
    """Seconds that each way takes for a prompt and its empty negative: those of a round, for each of the repeats.

    Args:
        repeats: rounds, in each of which everything takes its turn.
        others: timed in the same rounds.
    """
    works: dict[str, Callable[[], Any]] = {}
    for way in ways:
        encode = way.bind(pipes)
        encode(WARM_UP, "")
        works[way.name] = partial(encode, prompt, "")
    works |= others or {}
    for _ in range(repeats):
        yield {name: measured(work, pipes.stock.device)[1] for name, work in works.items()}


def cost_rows(spent: Mapping[str, Sequence[float]], references: Sequence[str]) -> list[Row]:
    """Seconds, and ratios to the references that were timed too: of the fastest rounds; extremes of the rounds."""
    rows = []
    for name, seconds in spent.items():
        rows.append(Row(name, "seconds", min(seconds), min(seconds), max(seconds), len(seconds)))
        for reference in references:
            if reference in spent:
                others = spent[reference]
                ratios = [one / other for one, other in zip(seconds, others, strict=True)]
                value = min(seconds) / min(others)
                low, high = min(value, *ratios), max(value, *ratios)
                rows.append(Row(name, f"time / {reference}'s", value, low, high, len(seconds)))
    return rows
