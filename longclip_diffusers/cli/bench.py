"""`longclip bench`: ratios of time and of counted work, each measured side by side in one run."""

from collections.abc import Sequence
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Any, Literal

from .bench_peers import peers
from .exits import quiet_libraries

__all__ = ["verbs"]


def train(
    *,
    batch_size: int = 256,
    micro_batch: int = 32,
    depth: int = 1,
    width: Literal["b16", "l14"] = "b16",
    device: str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
    repeats: int = 2,
    seed: int = 0,
    json: Path | None = None,
) -> None:
    """A contrastive step of the trainer against the plain, padded one and against naive accumulation.

    Random weights of CLIP's sizes, captions as long as DOCCI's. FLOPs are counted twice: for the measured batch, and
    for whole towers at a batch of 2048.

    Args:
        batch_size: samples in the contrastive batch.
        micro_batch: samples encoded at once, by all steps.
        depth: text layers; 12 are the whole tower. One takes about a minute a step on two CPU cores.
        width: sizes of ViT-B/16 or of ViT-L/14.
        device: cpu or cuda.
        precision: fp32, or bf16 autocast.
        repeats: how often each step is measured; the fastest counts.
        seed: of the weights and the batch.
        json: where the numbers go as well.
    """
    quiet_libraries()
    from ..training.bench import bench_table, bench_train

    settings: dict[str, Any] = {
        "batch_size": batch_size,
        "micro_batch": micro_batch,
        "depth": depth,
        "width": width,
        "device": device,
        "precision": precision,
        "repeats": repeats,
        "seed": seed,
    }
    rows = bench_train(**settings)
    print(bench_table(rows))
    _write(json, rows, settings)


def generate(
    *,
    lengths: tuple[int, ...] = (77, 248, 496, 992, 1984),
    model: Literal["sd15", "tiny"] = "sd15",
    size: int = 512,
    batch_size: int = 2,
    device: str = "cpu",
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    repeats: int = 3,
    seed: int = 0,
    json: Path | None = None,
) -> None:
    """A step of drawing for longer and longer texts, with the prompt's keys and values cached and without.

    A UNet of random weights; ratios are to the step with 77 tokens and no cache. FLOPs are counted exactly.

    Args:
        lengths: tokens of text.
        model: the shape of SD 1.5's UNet, or a toy's.
        size: of the picture in pixels.
        batch_size: 2 is one picture with guidance.
        device: cpu or cuda.
        dtype: of weights and inputs.
        repeats: how often each step is timed, all of them in turn; the fastest counts. 0 only counts FLOPs, which
            takes seconds; timing SD 1.5's shape on the CPU takes many minutes.
        seed: of weights and inputs.
        json: where the numbers go as well.
    """
    quiet_libraries()
    from ..evaluation.speed import bench_generate, speed_table

    settings: dict[str, Any] = {
        "lengths": lengths,
        "model": model,
        "size": size,
        "batch_size": batch_size,
        "device": device,
        "dtype": dtype,
        "repeats": repeats,
        "seed": seed,
    }
    rows = bench_generate(**settings)
    print(speed_table(rows))
    _write(json, rows, settings)


def encode(
    *,
    pages: int = 24,
    shortest: int = 100,
    longest: int = 900,
    model: Literal["clip-l", "tiny"] = "clip-l",
    device: str = "cpu",
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    repeats: int = 1,
    seed: int = 0,
    json: Path | None = None,
) -> None:
    """A book's pages encoded each by itself, with what they share read once as longgen does it, and in batches.

    An encoder of random weights and 248 positions, pages of random tokens under an empty negative. The last column
    says whether the pictures would depend on the batch: 0 is bit for bit the same.

    Args:
        pages: of the book.
        shortest: tokens of the shortest page.
        longest: tokens of the longest page; lengths are spread evenly between.
        model: the shape of CLIP-L's text encoder, or a toy's.
        device: cpu or cuda.
        dtype: of the weights.
        repeats: how often each way is timed, all of them in turn; the fastest counts.
        seed: of weights and pages.
        json: where the numbers go as well.
    """
    quiet_libraries()
    from ..evaluation.encoding import bench_encode, encode_table

    settings: dict[str, Any] = {
        "pages": pages,
        "shortest": shortest,
        "longest": longest,
        "model": model,
        "device": device,
        "dtype": dtype,
        "repeats": repeats,
        "seed": seed,
    }
    rows = bench_encode(**settings)
    print(encode_table(rows))
    _write(json, rows, settings)


def _write(file: Path | None, rows: Sequence[Any], settings: dict[str, Any]) -> None:
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dumps({"rows": [asdict(row) for row in rows], **settings}, indent=2) + "\n")


verbs = {"train": train, "generate": generate, "encode": encode, "peers": peers}
