"""What it costs to encode a book's pages: each by itself, with what pages share read once, and batched together."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..conditioning import encode_plans, num_rows
from ..errors import LongClipError
from ..positions import CLIP_LENGTH, LONG_LENGTH
from ..repeats import repeats_remembered
from ..text_encoder import CLIP_VOCABULARY, num_positions
from ..tokenizer import load_tokenizer
from ..windows import Window, WindowPlan

__all__ = ["ENCODERS", "EncodeRow", "bench_encode", "encode_table", "measured"]

ENCODERS: dict[str, dict[str, Any]] = {
    "clip-l": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
}
T = TypeVar("T")


@dataclass(frozen=True)
class EncodeRow:
    """A way to encode a book.

    Args:
        way: its name.
        passes: forward passes of the encoder.
        windows: read in them, all together.
        seconds: the fastest of the repeats; on the CPU those that the processor worked, whatever else it had to do.
        seconds_ratio: to the first way, timed in turn with this one.
        difference: the largest one to the first way in any number that a UNet reads; 0 is bit for bit the same.
    """

    way: str
    passes: int
    windows: int
    seconds: float
    seconds_ratio: float
    difference: float


def bench_encode(
    *,
    pages: int = 24,
    shortest: int = 100,
    longest: int = 900,
    model: Literal["clip-l", "tiny"] = "clip-l",
    device: str = "cpu",
    dtype: str = "float32",
    repeats: int = 1,
    seed: int = 0,
) -> list[EncodeRow]:
    """Three rows for pages of evenly spread lengths in random order, under an empty negative: an encoder of random
    weights and 248 positions reads them each by itself; as `longgen` does; and so, pages of as many rows in batches.

    Args:
        pages: of the book; shortest, longest: their content tokens. 1 or more each.
        dtype: of the weights: float32, float16 or bfloat16.
        repeats: timings of each way, in turn; 1 or more.

    Raises:
        LongClipError: a number out of range.
    """
    if min(pages, shortest, repeats) < 1 or longest < shortest:
        raise LongClipError(
            f"pages={pages}, shortest={shortest}, longest={longest}, repeats={repeats}: expected 1 or more of each, "
            "and longest not below shortest."
        )
    torch.manual_seed(seed)
    encoder = CLIPTextModel(CLIPTextConfig(max_position_embeddings=LONG_LENGTH, **ENCODERS[model])).eval()
    book = _Book(encoder.to(device, getattr(torch, dtype)), load_tokenizer(), _plans(pages, shortest, longest, seed))
    ways: dict[str, Callable[[], list[Tensor]]] = {
        "each by itself": book.page_by_page,
        "what they share once (longgen)": partial(book.page_by_page, remember=True),
        "and in batches": book.batched,
    }
    book.read_empty()  # the first call of anything is slow
    counts, results = {}, {}
    timed: dict[str, list[float]] = {name: [] for name in ways}
    for name, way in tqdm([*ways.items()] * repeats, desc="timing", unit="book"):
        with _counted(encoder) as counts[name]:
            results[name], seconds = measured(way, encoder.device)
        timed[name].append(seconds)
    first = next(iter(ways))
    return [
        EncodeRow(
            name,
            passes=len(counts[name]),
            windows=sum(counts[name]),
            seconds=min(timed[name]),
            seconds_ratio=min(timed[name]) / min(timed[first]),
            difference=_difference(results[name], results[first]),
        )
        for name in ways
    ]


def encode_table(rows: Sequence[EncodeRow]) -> str:
    """A Markdown table; ratios and differences are to the first row."""
    lines = ["| pages read | passes | windows | seconds | largest difference |", "|---|---|---|---|---|"]
    for row in rows:
        time_cell = f"{row.seconds:.3f} ({row.seconds_ratio:.2f}x)"
        lines.append(f"| {row.way} | {row.passes} | {row.windows} | {time_cell} | {row.difference:.2g} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class _Book:
    """An encoder and the pages it is to read, under an empty negative."""

    encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    pages: Sequence[WindowPlan]

    @torch.no_grad()
    def read_empty(self) -> Tensor:
        """The embeddings (1, 77, D) of the negative alone."""
        return self._encode([self._negative()], CLIP_LENGTH)

    @torch.no_grad()
    def page_by_page(self, *, remember: bool = False) -> list[Tensor]:
        """For each page the embeddings (1, L, D) of its text and of its negative."""
        with repeats_remembered() if remember else nullcontext():
            sides = [(page, text) for page in self.pages for text in (page, self._negative())]
            return [self._encode([text], self._rows(page)) for page, text in sides]

    @torch.no_grad()
    def batched(self) -> list[Tensor]:
        """The same, the windows of all pages with as many rows read together."""
        embeds: dict[int, tuple[Tensor, Tensor]] = {}
        with repeats_remembered():
            order = sorted(range(len(self.pages)), key=lambda at: self._rows(self.pages[at]))
            for rows, group in groupby(order, key=lambda at: self._rows(self.pages[at])):
                places = [*group]
                texts = self._encode([self.pages[at] for at in places], rows)
                negative = self._encode([self._negative()], rows)
                embeds |= {at: (text, negative) for at, text in zip(places, texts.split(1), strict=True)}
        return [side for at in range(len(self.pages)) for side in embeds[at]]

    def _rows(self, page: WindowPlan) -> int:
        return num_rows([page, self._negative()], window=page.window)

    def _negative(self) -> WindowPlan:
        ends = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        return WindowPlan((Window(ends, ""),), num_positions(self.encoder))

    def _encode(self, plans: Sequence[WindowPlan], rows: int) -> Tensor:
        """(B, rows, D)"""
        return encode_plans(plans, self.tokenizer, self.encoder, rows=rows)[0]


def _plans(pages: int, shortest: int, longest: int, seed: int) -> list[WindowPlan]:
    draw = random.Random(seed)
    lengths = [round(shortest + (longest - shortest) * page / max(1, pages - 1)) for page in range(pages)]
    draw.shuffle(lengths)
    return [_plan([draw.randrange(CLIP_VOCABULARY - 2) for _ in range(length)]) for length in lengths]


def _plan(ids: list[int]) -> WindowPlan:
    # Windows filled to the brim: where a text is cut is of no concern to the encoder.
    full = LONG_LENGTH - 2
    parts = [ids[start : start + full] for start in range(0, len(ids), full)]
    ends = CLIP_VOCABULARY - 2, CLIP_VOCABULARY - 1
    return WindowPlan(tuple(Window((ends[0], *part, ends[1]), "") for part in parts), LONG_LENGTH)


@contextmanager
def _counted(encoder: CLIPTextModel) -> Iterator[list[int]]:
    """The number of windows of each forward pass meanwhile."""
    windows: list[int] = []
    handle = encoder.register_forward_pre_hook(lambda module, args: windows.append(len(args[0])))
    try:
        yield windows
    finally:
        handle.remove()


def measured(way: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """What a way gives, and the seconds it took: of the processor, where that does the work, as others may use it."""
    on_cuda = device.type == "cuda"
    wait, clock = (torch.cuda.synchronize, time.perf_counter) if on_cuda else (lambda: None, time.process_time)
    wait()
    began = clock()
    result = way()
    wait()
    return result, clock() - began


def _difference(tensors: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    return max((one.double() - other.double()).abs().max().item() for one, other in zip(tensors, others, strict=True))
