"""Stage 3: the UNet, trained as Stable Diffusion was: frozen VAE, frozen 77-token text encoder, cut captions."""

import random
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from ...storybook.captions import Caption
from ...storybook.scene import Scene, draw_scene
from ..loop import Schedule, Step, optimise
from .autoencoder import LATENT_CHANNELS, pixels_of
from .clip import LENGTH, WIDTH
from .texts import base_caption, batch_captions

__all__ = [
    "FIRST_UNET_SCHEDULE",
    "NUM_SCENES",
    "UNET_SCHEDULE",
    "build_scheduler",
    "build_unet",
    "encode_latents",
    "train_unet",
]

# Two rounds: after the first, small things are still guessed; a second peak of the rate brings them out.
FIRST_UNET_SCHEDULE = Schedule(steps=7000, batch_size=48, learning_rate=1.5e-3, warmup=200, averaging=0.998)
UNET_SCHEDULE = Schedule(steps=2600, batch_size=48, learning_rate=1.2e-3, warmup=100, averaging=0.998)
DROPPED_CAPTIONS = 0.1  # as Stable Diffusion, for classifier-free guidance
NUM_SCENES = 32_768
LATENT_SIZE = 8


def build_unet() -> UNet2DConditionModel:
    """The untrained UNet: 8 x 8 and 4 x 4, cross-attention to the 64-wide token states in every block."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(64, 96),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """v-prediction with zero terminal SNR: for large flat colours the noisiest step must carry no trace of them."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,  # without effect here, but StableDiffusionPipeline insists
    )


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


def train_unet(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scenes: list[Scene],
    latents: Tensor,
    *,
    seed: int,
    checkpoints: Path,
    schedule: Schedule,
    first: bool,
) -> Iterator[Step]:
    """Train in place: v-prediction on the scenes' latents, conditioned on token states of captions cut at 77 tokens.

    Args:
        first: whether it is the first of the two rounds, which draw other batches.
    """
    scheduler = build_scheduler()
    num_timesteps = scheduler.config.num_train_timesteps

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"{seed}/unet/{step}" if first else f"{seed}/unet/second/{step}")
        torch.manual_seed(rng.getrandbits(32))
        chosen = [rng.randrange(len(scenes)) for _ in range(schedule.batch_size)]
        drawn = [scenes[index] for index in chosen]
        captions = [Caption(()) if rng.random() < DROPPED_CAPTIONS else base_caption(scene, rng) for scene in drawn]
        batch = batch_captions(captions, drawn, tokenizer, length=LENGTH)
        with torch.no_grad():
            states = text_encoder(batch.ids.to(unet.device)).last_hidden_state
        clean = latents[chosen].float().to(unet.device)
        noise = torch.randn(clean.shape).to(unet.device)
        # The larger of two draws: what a picture shows is decided in its noisiest steps.
        timesteps = torch.randint(num_timesteps, (2, len(chosen))).amax(dim=0).to(unet.device)
        noisy = scheduler.add_noise(clean, noise, timesteps)
        target = scheduler.get_velocity(clean, noise, timesteps)
        return torch.nn.functional.mse_loss(unet(noisy, timesteps, states).sample, target)

    yield from optimise(unet, loss_of, schedule, checkpoints)
