"""What a contrastive step costs, measured side by side with the step of the released code and with accumulation."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import CLIPConfig, CLIPModel

from ..errors import LongClipError
from ..positions import LONG_LENGTH
from ..text_encoder import CLIP_EOS, CLIP_VOCABULARY
from .contrastive import ContrastiveBatch, contrastive_backward
from .flops import step_flops
from .recipe import Recipe

__all__ = ["LARGE_BATCH", "BenchRow", "bench_table", "bench_train", "large_flops"]

# The paper's batch in chunks that fit one large GPU, through towers of full depth: counted, which needs no time.
LARGE_BATCH, LARGE_MICRO_BATCH, FULL_DEPTH = 2048, 128, 12
# Tokens of DOCCI's captions (test part) and of their first sentences: mean and standard deviation.
LONG_TOKENS, SHORT_TOKENS = (144, 53), (24, 9)
FEWEST_TOKENS = 5
# text width and heads; vision width, heads and patch; vision layers for each text layer
WIDTHS = {"b16": (512, 8, 768, 12, 16, 1), "l14": (768, 12, 1024, 16, 14, 2)}
PICTURE_SIZE = 224
Captions = tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]  # token ids of the long ones and of the short ones


@dataclass(frozen=True)
class BenchRow:
    """One way to make a step.

    Args:
        step: ours; plain (all captions padded to the tower's length); or accumulation (plain, each micro-batch a
            contrastive batch of its own).
        seconds: the fastest of the repeats.
        flops: of both towers at the measured batch size.
        large_flops: of towers of full depth at a batch of 2048 in chunks of 128.
        gradient_error: |gradient - plain's| / |plain's|, over all parameters together.
    """

    step: str
    seconds: float
    flops: float
    large_flops: float
    gradient_error: float


def bench_train(
    *,
    batch_size: int = 256,
    micro_batch: int = 32,
    depth: int = 1,
    width: Literal["b16", "l14"] = "b16",
    device: str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
    repeats: int = 2,
    seed: int = 0,
) -> list[BenchRow]:
    """Rows of the plain step, ours and accumulation: random weights, captions as long as DOCCI's, the same batch.

    All encode at most `micro_batch` samples at once; the first two encode twice where that is less than the batch.

    Args:
        depth: text layers, 12 in the real models; L/14's vision tower has two for each.
        repeats: measurements of each step, taken in turn.

    Raises:
        LongClipError: a number below 1.
    """
    for name, number in (
        ("batch_size", batch_size),
        ("micro_batch", micro_batch),
        ("depth", depth),
        ("repeats", repeats),
    ):
        if number < 1:
            raise LongClipError(f"{name} is {number}; it must be 1 at least.")
    torch.manual_seed(seed)
    with torch.device(device):
        clip = _build_clip(width, depth)
    recipe = Recipe(base="random", batch_size=batch_size, precision=precision)
    batch = _draw_batch(batch_size, clip)
    padded = _padded(batch)
    steps: dict[str, Callable[[], None]] = {
        "plain": lambda: _step(clip, padded, recipe, micro_batch),
        "ours": lambda: _step(clip, batch, recipe, micro_batch),
        "accumulation": lambda: _accumulate(clip, padded, recipe, micro_batch),
    }
    _accumulate(clip, _part(padded, 0, 2), recipe, 1)  # the first call of anything is slow
    seconds = {name: float("inf") for name in steps}
    gradients = {}
    for name, step in tqdm([*steps.items()] * repeats, desc="timing", unit="step"):
        clip.zero_grad()
        began = time.perf_counter()
        step()
        seconds[name] = min(seconds[name], time.perf_counter() - began)
        gradients[name] = _gradient(clip)
    plain = gradients["plain"]
    return [
        BenchRow(
            step=name,
            seconds=seconds[name],
            flops=_flops(clip, name, (batch.long_ids, batch.short_ids), micro_batch, clip.device),
            large_flops=large_flops(width, name, device=device),
            gradient_error=((gradients[name] - plain).norm() / plain.norm()).item(),
        )
        for name in steps
    ]


def large_flops(width: str, step: str, *, device: str = "cpu") -> float:
    """FLOPs of one of the steps for towers of full depth at a batch of 2048, in chunks as for `device`."""
    torch.manual_seed(0)
    captions = _draw_captions(LARGE_BATCH, *LONG_TOKENS), _draw_captions(LARGE_BATCH, *SHORT_TOKENS)
    with torch.device("meta"):
        whole = _build_clip(width, FULL_DEPTH)
    return _flops(whole, step, captions, LARGE_MICRO_BATCH, torch.device(device))


def bench_table(rows: Sequence[BenchRow]) -> str:
    """A Markdown table: seconds and FLOPs of each step, and how many times less than the plain one's they are."""
    plain = next(row for row in rows if row.step == "plain")
    lines = [
        f"| step | seconds | TFLOP | TFLOP, whole towers, batch {LARGE_BATCH} | gradient error |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            f"{row.seconds:.2f} ({plain.seconds / row.seconds:.2f}x)",
            f"{row.flops / 1e12:.2f} ({plain.flops / row.flops:.2f}x)",
            f"{row.large_flops / 1e12:.0f} ({plain.large_flops / row.large_flops:.2f}x)",
            f"{row.gradient_error:.1e}",
        ]
        lines.append(f"| {row.step} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _step(clip: CLIPModel, batch: ContrastiveBatch, recipe: Recipe, micro_batch: int, weight: float = 1.0) -> None:
    contrastive_backward(clip, batch, recipe, micro_batch=micro_batch, weight=weight)


def _accumulate(clip: CLIPModel, batch: ContrastiveBatch, recipe: Recipe, micro_batch: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that PCM does nothing in a micro-batch is one of its faults
        for start in range(0, len(batch.long_ids), micro_batch):
            part = _part(batch, start, start + micro_batch)
            share = len(part.long_ids) / recipe.batch_size
            _step(clip, part, recipe, micro_batch, share)


def _flops(clip: CLIPModel, step: str, captions: Captions, micro_batch: int, device: torch.device) -> float:
    longs, shorts = [[len(row) for row in rows] for rows in captions]
    if step != "ours":
        longs = shorts = [LONG_LENGTH] * len(longs)
    replay = step != "accumulation" and micro_batch < len(longs)
    return step_flops(clip, longs, shorts, micro_batch=micro_batch, replay=replay, device=device)


def _build_clip(width: str, depth: int) -> CLIPModel:
    """An untrained CLIP of the real model's widths, 248 positions and `depth` text layers."""
    text_width, text_heads, vision_width, vision_heads, patch, ratio = WIDTHS[width]
    text = {
        "vocab_size": CLIP_VOCABULARY,
        "hidden_size": text_width,
        "intermediate_size": 4 * text_width,
        "num_attention_heads": text_heads,
        "num_hidden_layers": depth,
        "max_position_embeddings": LONG_LENGTH,
        "projection_dim": text_width,
        "bos_token_id": CLIP_EOS - 1,
        "eos_token_id": CLIP_EOS,
        "pad_token_id": CLIP_EOS,
    }
    vision = {
        "hidden_size": vision_width,
        "intermediate_size": 4 * vision_width,
        "num_attention_heads": vision_heads,
        "num_hidden_layers": ratio * depth,
        "patch_size": patch,
        "image_size": PICTURE_SIZE,
        "projection_dim": text_width,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=text_width))


def _draw_batch(size: int, clip: CLIPModel) -> ContrastiveBatch:
    pixels = torch.randn(size, 3, PICTURE_SIZE, PICTURE_SIZE).to(clip.device)
    return ContrastiveBatch(pixels, _draw_captions(size, *LONG_TOKENS), _draw_captions(size, *SHORT_TOKENS))


def _draw_captions(count: int, mean: float, deviation: float) -> list[list[int]]:
    """Random tokens between BOS and EOS, normally many."""
    lengths = (mean + deviation * torch.randn(count)).round().clamp(FEWEST_TOKENS, LONG_LENGTH).int().tolist()
    return [[CLIP_EOS - 1, *torch.randint(CLIP_EOS - 1, (length - 2,)).tolist(), CLIP_EOS] for length in lengths]


def _padded(batch: ContrastiveBatch) -> ContrastiveBatch:
    """The same batch, all captions as long as the tower: features, read at the first EOS, stay what they are."""

    def fill(rows: Sequence[Sequence[int]]) -> list[list[int]]:
        return [[*row, *[CLIP_EOS] * (LONG_LENGTH - len(row))] for row in rows]

    return replace(batch, long_ids=fill(batch.long_ids), short_ids=fill(batch.short_ids))


def _part(batch: ContrastiveBatch, start: int, stop: int) -> ContrastiveBatch:
    part = slice(start, stop)
    return ContrastiveBatch(batch.images[part], batch.long_ids[part], batch.short_ids[part])


def _gradient(clip: CLIPModel) -> Tensor:
    """All gradients, one after the other."""
    return torch.cat([each.grad.flatten() for each in clip.parameters() if each.grad is not None])
