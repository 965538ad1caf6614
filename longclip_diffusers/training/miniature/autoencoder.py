"""The AutoencoderKL of the miniature, 128 x 128 pixels to 8 x 8 latents."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from ...storybook.render import render
from ...storybook.scene import Scene, draw_scene
from ..loop import Schedule, Step, optimise

__all__ = ["AUTOENCODER_SCHEDULE", "build_autoencoder", "pixels_of", "train_autoencoder"]

AUTOENCODER_SCHEDULE = Schedule(steps=6000, batch_size=8, learning_rate=2e-3, warmup=100, averaging=0.998)
# Just enough to keep the latents from drifting apart; Stable Diffusion's VAE uses 1e-6 too.
KL_WEIGHT = 1e-6
BLOCK_CHANNELS = (8, 16, 32, 64, 96)  # four halvings: 128 px become 8
LATENT_CHANNELS = 12
# Few groups: with one channel a group, normalisation would wash out which colour a flat area has.
NORM_GROUPS = 2


def build_autoencoder() -> AutoencoderKL:
    """The untrained autoencoder."""
    levels = len(BLOCK_CHANNELS)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=BLOCK_CHANNELS,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=NORM_GROUPS,
        mid_block_add_attention=False,
        sample_size=128,
    )


def pixels_of(scenes: list[Scene]) -> Tensor:
    """The scenes' pictures, (B, 3, 128, 128) in -1 to 1."""
    pictures = np.stack([np.asarray(render(scene)) for scene in scenes])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_autoencoder(
    vae: AutoencoderKL, *, seed: int, checkpoints: Path, schedule: Schedule = AUTOENCODER_SCHEDULE
) -> Iterator[Step]:
    """Train in place on pictures alone, then set `scaling_factor` so that latents have unit variance.

    L1 draws sharp edges; alone it settles similar colours on their median, the squared error keeps them apart.
    """

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"{seed}/autoencoder/{step}")
        torch.manual_seed(rng.getrandbits(32))
        pixels = pixels_of([draw_scene(rng) for _ in range(schedule.batch_size)]).to(vae.device)
        with torch.autocast(pixels.device.type, torch.bfloat16):
            posterior = vae.encode(pixels).latent_dist
            rebuilt = vae.decode(posterior.sample()).sample
        error = rebuilt.float() - pixels
        return error.abs().mean() + error.square().mean() + KL_WEIGHT * posterior.kl().float().mean()

    yield from optimise(vae, loss_of, schedule, checkpoints)
    rng = random.Random(f"{seed}/autoencoder/scale")
    with torch.no_grad():
        latents = vae.encode(pixels_of([draw_scene(rng) for _ in range(256)]).to(vae.device)).latent_dist.mean
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
