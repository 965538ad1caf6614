"""What encoding costs each way, side by side, and beside a step of the UNet."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch

from .. import encoding
from ..encoding import measured
from ..report import Row
from .pipes import Pipes
from .ways import Family, Way

__all__ = ["ENCODERS", "UNET_STEP", "cost_rows", "time_ways"]

UNET_STEP = "unet_step"
BIG_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
TINY_G = encoding.ENCODERS["tiny"] | {"hidden_size": 48, "hidden_act": "gelu", "projection_dim": 24}
# Sizes of a family's text encoders: its own, and a toy's.
ENCODERS: dict[Family, dict[Literal["full", "tiny"], list[dict[str, Any]]]] = {
    "sd15": {"full": [encoding.ENCODERS["clip-l"]], "tiny": [encoding.ENCODERS["tiny"]]},
    "sdxl": {"full": [encoding.ENCODERS["clip-l"], BIG_G], "tiny": [encoding.ENCODERS["tiny"], TINY_G]},
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
