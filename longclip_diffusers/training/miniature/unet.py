"""The miniature's UNet, trained as Stable Diffusion was: frozen VAE, frozen 77-token text encoder, cut captions.

But a caption's own facts weigh more: small things are a thousandth of the squared error, and where most of a picture is
not told, almost all of that is chance. So the error weighs more where they are seen, and what a reader of latents makes
of the picture predicted counts too.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import CLIPTextModel, CLIPTokenizer

from ...storybook.captions import Caption
from ...storybook.scene import Scene
from ..loop import Schedule, Step, optimise
from .autoencoder import LATENT_CHANNELS
from .clip import LENGTH, WIDTH
from .latents import LATENT_SIZE, LatentReader, told_cells
from .texts import REFERENCE, base_caption, batch_captions

__all__ = ["UNET_SCHEDULE", "build_scheduler", "build_unet", "train_unet"]

UNET_SCHEDULE = Schedule(10_000, 48, 1.5e-3, warmup=200, averaging=0.998, shares=2, optimizer="muon")
SHARPER = 1.6  # times the keys of the text, once trained
DROPPED_CAPTIONS = 0.1  # as Stable Diffusion, for classifier-free guidance
TOLD_WEIGHT = 10.0  # of the squared error where a told thing is seen, beside 1 of every place
TOLD_SHARE = 0.1  # of the places, about: the mean weight stays near 1
REFERENCE_WEIGHT = 2.0  # of a thing told by reference, beside 1 of one told directly
READER_WEIGHT = 0.1  # of the latent reader's cross-entropy


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
        attention_head_dim=4,  # heads: with eight, of 8 and 12 channels, it learns more slowly
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
    reader: LatentReader,
) -> Iterator[Step]:
    """Train in place: v-prediction on the scenes' latents, conditioned on token states of captions cut at 77 tokens.

    Then the keys of the text are multiplied by `SHARPER`. Attention sharpens slowly, and soft attention finds nearly
    all that 77 rows tell; but among a chapter's many rows it loses what is told by reference. A UNet trained two to
    three times as long comes out sharper by itself (samples/proof).

    Args:
        seed: of the batches.
        reader: of latents, frozen.
    """
    scheduler = build_scheduler()
    num_timesteps = scheduler.config.num_train_timesteps

    def loss_of(share: int) -> Tensor:
        rng = random.Random(f"{seed}/unet/{share}")
        generator = torch.Generator().manual_seed(rng.getrandbits(32))
        chosen = [rng.randrange(len(scenes)) for _ in range(schedule.share_size)]
        drawn = [scenes[index] for index in chosen]
        captions = [Caption(()) if rng.random() < DROPPED_CAPTIONS else base_caption(scene, rng) for scene in drawn]
        batch = batch_captions(captions, drawn, tokenizer, length=LENGTH)
        clean = latents[chosen].float()
        noise = torch.randn(clean.shape, generator=generator)
        # The larger of two draws: what a picture shows is decided in its noisiest steps.
        timesteps = torch.randint(num_timesteps, (2, len(chosen)), generator=generator).amax(dim=0)
        clean, noise, timesteps = (part.to(unet.device) for part in (clean, noise, timesteps))
        with torch.no_grad():
            states = text_encoder(batch.ids.to(unet.device)).last_hidden_state
        noisy = scheduler.add_noise(clean, noise, timesteps)
        velocity = unet(noisy, timesteps, states).sample
        error = (velocity - scheduler.get_velocity(clean, noise, timesteps)).square().mean(dim=1)
        told = batch.told()
        weights = torch.where(told.places == REFERENCE, REFERENCE_WEIGHT, 1.0)
        # The weight depends on the caption alone, so it moves no optimum.
        weight = 1 + TOLD_WEIGHT * told_cells(told, weights).to(error)
        signal = scheduler.alphas_cumprod.to(error)[timesteps][:, None, None, None]
        predicted = signal.sqrt() * noisy - (1 - signal).sqrt() * velocity
        here = told.to(unet.device)
        misread = cross_entropy(reader(predicted)[here.rows, here.slots], here.words, reduction="none")
        misread = misread @ weights.to(misread) / weights.sum().clamp(min=1)
        return (error * weight).mean() / (1 + TOLD_WEIGHT * TOLD_SHARE) + READER_WEIGHT * misread

    yield from optimise(unet, loss_of, schedule, checkpoints)
    with torch.no_grad():
        for name, module in unet.named_modules():
            if name.endswith(".attn2.to_k"):
                module.weight.mul_(SHARPER)
