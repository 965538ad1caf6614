"""`longclip bench`: ratios of time and of counted work, each measured side by side in one run."""

from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Any, Literal

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
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(dumps({"rows": [asdict(row) for row in rows], **settings}, indent=2) + "\n")


verbs = {"train": train}
