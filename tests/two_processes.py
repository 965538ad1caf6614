"""What each of two gloo processes does in tests/training/test_distributed.py; a spawned process imports it by name."""

import dataclasses
import random
from pathlib import Path

import torch
import torch.distributed as dist
import toys

from longclip_diffusers.training import distributed
from longclip_diffusers.training.contrastive import ContrastiveBatch, ContrastiveLosses, contrastive_backward
from longclip_diffusers.training.recipe import Recipe

BATCH, LENGTH, EOS = 128, 30, 513
RECIPE = Recipe(base="toy", batch_size=BATCH, components=6, label_smoothing=0.1, margin=0.3, short_weight=0.7)
# dtype, recipe and micro-batch of each comparison
CASES = {
    "double": (torch.float64, RECIPE, 24),
    "double, one graph": (torch.float64, RECIPE, BATCH),
    "single": (torch.float32, RECIPE, 24),
    "rank": (torch.float64, dataclasses.replace(RECIPE, pca="rank"), 24),
}


def draw_batch(dtype: torch.dtype) -> ContrastiveBatch:
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    longs = [[512, *rng.choices(range(512), k=rng.randint(5, LENGTH - 2)), EOS] for _ in range(BATCH)]
    shorts = [[512, *rng.choices(range(512), k=rng.randint(1, 6)), EOS] for _ in range(BATCH)]
    return ContrastiveBatch(torch.randn(BATCH, 3, 32, 32, generator=generator).to(dtype), longs, shorts)


def part(batch: ContrastiveBatch, rank: int, num_processes: int) -> ContrastiveBatch:
    rows = slice(rank * BATCH // num_processes, (rank + 1) * BATCH // num_processes)
    return ContrastiveBatch(batch.images[rows], batch.long_ids[rows], batch.short_ids[rows])


def step(case: str, rank: int = 0, num_processes: int = 1) -> tuple[ContrastiveLosses, dict[str, torch.Tensor]]:
    """The losses and the averaged gradients of one case."""
    dtype, recipe, micro_batch = CASES[case]
    clip = toys.clip(LENGTH).to(dtype)
    batch = part(draw_batch(dtype), rank, num_processes)
    losses = contrastive_backward(clip, batch, recipe, micro_batch=micro_batch)
    distributed.average_gradients(clip.parameters())
    return losses, {name: parameter.grad for name, parameter in clip.named_parameters()}


def work(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    distributed.BUCKET_BYTES = 20_000  # several buckets, and the token table alone in a larger one
    rows = torch.tensor([[1.0 + rank]], requires_grad=True)
    everyone = distributed.gather(rows)
    (everyone.flatten() @ torch.tensor([10.0, 100.0]) * (rank + 1)).backward()
    facts = {
        "rank": distributed.rank(),
        "num_processes": distributed.num_processes(),
        "gathered": everyone.tolist(),
        "gradient": rows.grad.item(),
        "any": [distributed.any_process(flag) for flag in (rank == 1, False)],
        "average": distributed.average([rank, 3.0]),
    }
    results = {case: step(case, rank, 2) for case in CASES}
    torch.save((facts, results), folder / f"{rank}.pt")
    dist.destroy_process_group()
