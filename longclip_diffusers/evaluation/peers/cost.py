"""What encoding costs each way, side by side, and beside a step of the UNet."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from ..report import Row
from .pipes import Pipes
from .ways import Way

__all__ = ["ENCODERS", "UNET_STEP", "cost_rows", "time_ways"]

UNET_STEP = "unet_step"
# Random weights in the shape of SD 1.5's text encoder (CLIP's L/14), or a toy's.
ENCODERS: dict[str, dict[str, Any]] = {
    "sd15": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
}
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
        yield {name: _seconds(work, pipes.stock.device) for name, work in works.items()}


def cost_rows(timed: Mapping[str, Sequence[float]], references: Sequence[str]) -> list[Row]:
    """Seconds, and ratios to the references that were timed too: of the fastest rounds; extremes of the rounds."""
    rows = []
    for name, seconds in timed.items():
        rows.append(Row(name, "seconds", min(seconds), min(seconds), max(seconds), len(seconds)))
        for reference in references:
            if reference in timed:
                others = timed[reference]
                ratios = [one / other for one, other in zip(seconds, others, strict=True)]
                value = min(seconds) / min(others)
                low, high = min(value, *ratios), max(value, *ratios)
                rows.append(Row(name, f"time / {reference}'s", value, low, high, len(seconds)))
    return rows


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began
