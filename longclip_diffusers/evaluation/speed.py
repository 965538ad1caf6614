"""What a step of drawing costs for longer and longer texts, with the prompt's keys and values cached and without."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from ..errors import LongClipError
from ..kv_cache import prompt_cache
from ..positions import CLIP_LENGTH

__all__ = ["LENGTHS", "SpeedRow", "bench_generate", "random_unet", "speed_table", "step_flops", "unet_step"]

LENGTHS = (77, 248, 496, 992, 1984)  # stock, and 1, 2, 4 and 8 windows of a Long-CLIP
LATENT_FACTOR = 8  # pixels of a picture for each of its latents
# diffusers' defaults are SD 1.5 but for the width of its text.
UNETS: dict[str, dict[str, Any]] = {
    "sd15": {"cross_attention_dim": 768},
    "tiny": {
        "cross_attention_dim": 32,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    },
}
Way = tuple[int, bool]  # tokens, and whether with the cache
Step = Callable[[], None]


@dataclass(frozen=True)
class SpeedRow:
    """One step of the UNet.

    Args:
        tokens: rows of text for each picture.
        cache: whether the prompt's keys and values are known from an earlier step.
        flops: counted exactly, on shapes.
        flops_ratio: to the step with 77 tokens and no cache.
        seconds: the fastest of the repeats; None where nothing was timed.
        seconds_ratio: to the same step, timed in turn with this one.
        peak_mib: the most memory of the device during a step, weights included; None but on CUDA.
    """

    tokens: int
    cache: bool
    flops: int
    flops_ratio: float
    seconds: float | None = None
    seconds_ratio: float | None = None
    peak_mib: float | None = None


def bench_generate(
    *,
    lengths: Sequence[int] = LENGTHS,
    model: Literal["sd15", "tiny"] = "sd15",
    size: int = 512,
    batch_size: int = 2,
    device: str = "cpu",
    dtype: str = "float32",
    repeats: int = 3,
    seed: int = 0,
) -> list[SpeedRow]:
    """Two rows, without and with the cache, for 77 tokens and for each length: a UNet of random weights.

    Args:
        lengths: tokens of text, 1 or more each.
        size: of the square picture in pixels, a multiple of 8 that the UNet can halve.
        batch_size: 2 is one picture with guidance.
        dtype: of weights and inputs: float32, float16 or bfloat16.
        repeats: timings of each step, in turn; 0 counts FLOPs only.

    Raises:
        LongClipError: a number out of range.
    """
    if not lengths or min(lengths) < 1 or batch_size < 1 or repeats < 0 or size < LATENT_FACTOR or size % LATENT_FACTOR:
        raise LongClipError(
            f"lengths={list(lengths)}, batch_size={batch_size}, repeats={repeats}, size={size}: expected lengths and a "
            f"batch of 1 or more, repeats of 0 or more, and a size that is a multiple of {LATENT_FACTOR}."
        )
    ways = [(tokens, cache) for tokens in sorted({CLIP_LENGTH, *lengths}) for cache in (False, True)]
    flops = step_flops(ways, model=model, size=size, batch_size=batch_size)
    timed: dict[Way, list[float]] = {way: [] for way in ways}
    peaks: dict[Way, float | None] = dict.fromkeys(ways)
    if repeats:
        torch.manual_seed(seed)
        unet = random_unet(model, device, getattr(torch, dtype))
        steps = {tokens: unet_step(unet, tokens, size, batch_size) for tokens, _ in ways}
        steps[CLIP_LENGTH]()  # the first call of anything is slow
        for tokens, cache in tqdm(ways * repeats, desc="timing", unit="step"):
            seconds, peaks[tokens, cache] = _measured(steps[tokens], _caching(unet, cache=cache), unet.device)
            timed[tokens, cache].append(seconds)
    reference = CLIP_LENGTH, False
    return [
        SpeedRow(
            *way,
            flops=flops[way],
            flops_ratio=flops[way] / flops[reference],
            seconds=min(timed[way], default=None),
            seconds_ratio=min(timed[way]) / min(timed[reference]) if repeats else None,
            peak_mib=peaks[way],
        )
        for way in ways
    ]


def step_flops(
    ways: Sequence[Way], *, model: Literal["sd15", "tiny"] = "sd15", size: int = 512, batch_size: int = 2
) -> dict[Way, int]:
    """FLOPs of one step for each (tokens, cache), as torch counts them on shapes alone.

    With the cache they are those of any step but a call's first.
    """
    unet = random_unet(model, "meta", torch.float32)
    unet.set_attn_processor(AttnProcessor())  # its products are known to every version of the counter
    flops = {}
    for tokens, cache in ways:
        step = unet_step(unet, tokens, size, batch_size)
        with _caching(unet, cache=cache):
            if cache:
                step()
            with FlopCounterMode(display=False) as counter:
                step()
        flops[tokens, cache] = counter.get_total_flops()
    return flops


def speed_table(rows: Sequence[SpeedRow]) -> str:
    """A Markdown table; ratios are to the step with 77 tokens and no cache."""
    timed, peaked = rows[0].seconds is not None, rows[0].peak_mib is not None
    names = ["tokens", "cache", "TFLOP", *(["seconds"] if timed else []), *(["peak MiB"] if peaked else [])]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [str(row.tokens), "yes" if row.cache else "no", f"{row.flops / 1e12:.3f} ({row.flops_ratio:.3f}x)"]
        cells += [f"{row.seconds:.4f} ({row.seconds_ratio:.2f}x)"] if timed else []
        cells += [f"{row.peak_mib:.0f}"] if peaked else []
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _measured(step: Step, caching: AbstractContextManager[None], device: torch.device) -> tuple[float, float | None]:
    """Seconds of a step that is not the first of its call, and the peak of memory in MiB on CUDA."""
    on_cuda = device.type == "cuda"
    wait = torch.cuda.synchronize if on_cuda else lambda: None
    with caching:
        step()
        wait()
        if on_cuda:
            torch.cuda.reset_peak_memory_stats(device)
        began = time.perf_counter()
        step()
        wait()
        seconds = time.perf_counter() - began
    return seconds, torch.cuda.max_memory_allocated(device) / 2**20 if on_cuda else None


def _caching(unet: UNet2DConditionModel, *, cache: bool) -> AbstractContextManager[None]:
    return prompt_cache(unet) if cache else nullcontext()


def random_unet(model: str, device: str, dtype: torch.dtype) -> UNet2DConditionModel:
    """A UNet of random weights in one of the shapes `UNETS`."""
    with torch.device(device):
        unet = UNet2DConditionModel(**UNETS[model]).eval()
    return unet if dtype == torch.float32 else unet.to(dtype)


def unet_step(unet: UNet2DConditionModel, tokens: int, size: int, batch_size: int) -> Step:
    """One forward pass of the UNet on random inputs, as a function: `tokens` rows of text, `size` pixels square."""
    side = size // LATENT_FACTOR
    latents = torch.randn(batch_size, unet.config.in_channels, side, side, device=unet.device, dtype=unet.dtype)
    prompt = torch.randn(batch_size, tokens, unet.config.cross_attention_dim, device=unet.device, dtype=unet.dtype)
    moment = torch.tensor(500, device=unet.device)

    def step() -> None:
        with torch.no_grad():
            unet(latents, moment, encoder_hidden_states=prompt)

    return step
