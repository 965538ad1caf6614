"""Pictures as latents: encoded once for every round of the UNet, what can be read in them, and where."""

import random
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ...storybook.render import SIZE
from ...storybook.scene import Scene, draw_scene
from ...storybook.slots import IS_WORD, MAX_WORDS, SLOTS
from ..loop import Schedule, Step, optimise
from .autoencoder import LATENT_CHANNELS, pixels_of
from .texts import TextBatch, word_indices

__all__ = [
    "LATENT_READER_SCHEDULE",
    "LATENT_SIZE",
    "NUM_SCENES",
    "LatentReader",
    "encode_latents",
    "told_cells",
    "train_latent_reader",
]

NUM_SCENES = 32_768
LATENT_SIZE = 8
# About a minute of two cores; the reader then names .999 of the slots of new pictures.
LATENT_READER_SCHEDULE = Schedule(steps=4000, batch_size=256, learning_rate=2e-3, warmup=1200, weight_decay=0.05)
READER_NOISE = 0.5  # the most noise that it learns to look past, for it will read predictions


def encode_latents(vae: AutoencoderKL, *, seed: int, path: Path, num_scenes: int) -> tuple[list[Scene], Tensor]:
    """`num_scenes` scenes and their latents (S, 12, 8, 8) at unit variance, fp16; read from `path` where it exists."""
    rng = random.Random(f"{seed}/unet/scenes")
    scenes = [draw_scene(rng) for _ in range(num_scenes)]
    if not path.is_file():
        parts = []
        for start in range(0, num_scenes, 64):
            pixels = pixels_of(scenes[start : start + 64]).to(vae.device)
            with torch.no_grad(), torch.autocast(vae.device.type, torch.bfloat16):
                parts.append(vae.encode(pixels).latent_dist.mean.float().cpu())
        unfinished = path.with_suffix(".unfinished")
        latents = (torch.cat(parts) * vae.config.scaling_factor).half().contiguous()
        save_file({"latents": latents}, unfinished)
        unfinished.replace(path)
    return scenes, load_file(path)["latents"]


class LatentReader(nn.Sequential):
    """Reads every slot's word: latents (B, 12, 8, 8) to logits (B, slots, words), minus infinity where a slot has no
    such word."""

    is_word: Tensor

    def __init__(self) -> None:
        size = LATENT_CHANNELS * LATENT_SIZE**2
        layers = [nn.Linear(size, size), nn.GELU(), nn.Linear(size, size), nn.GELU()]
        super().__init__(nn.Flatten(), *layers, nn.Linear(size, len(SLOTS) * MAX_WORDS))
        self.register_buffer("is_word", torch.tensor(IS_WORD))

    def forward(self, latents: Tensor) -> Tensor:
        """Both shapes as in the class's docstring."""
        logits = super().forward(latents).unflatten(-1, self.is_word.shape)
        return logits.masked_fill(~self.is_word, -torch.inf)


def train_latent_reader(
    reader: LatentReader, scenes: list[Scene], latents: Tensor, *, seed: int, checkpoints: Path, schedule: Schedule
) -> Iterator[Step]:
    """Train in place on the scenes' latents, under as much noise as a prediction may have."""
    truth = word_indices(scenes)
    device = reader.is_word.device

    def loss_of(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(random.Random(f"{seed}/latent_reader/{step}").getrandbits(32))
        chosen = torch.randint(len(scenes), (schedule.batch_size,), generator=generator)
        clean = latents[chosen].float()
        amount = torch.rand(len(clean), 1, 1, 1, generator=generator) * READER_NOISE
        noisy = clean + amount * torch.randn(clean.shape, generator=generator)
        return cross_entropy(reader(noisy.to(device)).flatten(0, 1), truth[chosen].flatten().to(device))

    yield from optimise(reader, loss_of, schedule, checkpoints)


def told_cells(told: TextBatch, weights: Tensor) -> Tensor:
    """Where each text's facts are seen, (B, 8, 8): the largest weight (F,) of those in a cell that holds a core of
    their slot, elsewhere 0."""
    cell = SIZE // LATENT_SIZE
    places = torch.zeros(len(SLOTS), LATENT_SIZE, LATENT_SIZE)
    for place, slot in zip(places, SLOTS, strict=True):
        for left, top, right, bottom in slot.cores:
            place[top // cell : (bottom - 1) // cell + 1, left // cell : (right - 1) // cell + 1] = 1
    by_slot = torch.zeros(len(told.ids), len(SLOTS))
    by_slot[told.rows, told.slots] = weights
    return (by_slot[:, :, None, None] * places).amax(dim=1)
