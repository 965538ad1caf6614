"""Stage 3: the UNet, trained as Stable Diffusion was: frozen VAE, frozen 77-token text encoder, cut captions.

In rounds. Large things are bound to their words in the first, small ones hardly: they are a thousandth of the squared
error, and where most of a picture is not told, almost all of that is chance. Later ones have a caption's own facts
weigh more: the error where they are seen, and what a reader of latents makes of the picture predicted.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import CLIPTextModel, CLIPTokenizer

from ...storybook.captions import Caption
from ...storybook.phrases import Phrases
from ...storybook.scene import Scene
from ..distributed import num_processes, rank
from ..loop import Schedule, Step, optimise
from .autoencoder import LATENT_CHANNELS
from .clip import LENGTH, WIDTH
from .latents import LATENT_SIZE, LatentReader, told_cells
from .texts import CUE, REFERENCE, base_caption, batch_captions

__all__ = ["ROUNDS", "Round", "build_scheduler", "build_unet", "train_unet"]


@dataclass(frozen=True)
class Round:
    """One round: whose token states condition it, in captions such as this CLIP learned, and for how long."""

    clip: str
    schedule: Schedule
    batches: str  # what its batches are drawn from, beside the seed
    with_reader: bool = False  # a caption's own facts weigh more
    references: float = 1.0  # of those: how much one told by reference weighs, beside 1 of one told directly


# By the name of its stage. Each starts from the averaged weights of the one before, at a new peak of the rate.
ROUNDS = {
    "unet_first": Round("clip_second", Schedule(7000, 48, 1.5e-3, warmup=200, averaging=0.998), "unet"),
    "unet_second": Round("clip_second", Schedule(2600, 48, 1.2e-3, warmup=100, averaging=0.998), "unet/second"),
    "unet_third": Round("clip_second", Schedule(4000, 48, 1.2e-3, warmup=100, averaging=0.998), "unet/third", True),
    "unet_fourth": Round("clip_third", Schedule(1500, 48, 1e-3, warmup=100, averaging=0.998), "unet/fourth", True),
    "unet_fifth": Round("clip_fourth", Schedule(3000, 48, 1e-3, warmup=100, averaging=0.998), "unet/fifth", True),
    "unet_sixth": Round(
        "clip_fourth", Schedule(2000, 48, 1e-3, warmup=100, averaging=0.998), "unet/sixth", True, references=3.0
    ),
    "unet": Round(
        "clip",
        Schedule(4000, 48, 1e-3, warmup=100, averaging=0.998, optimizer="muon"),
        "unet/seventh",
        True,
        references=2.0,
    ),
}
DROPPED_CAPTIONS = 0.1  # as Stable Diffusion, for classifier-free guidance
TOLD_WEIGHT = 10.0  # of the squared error where a told thing is seen, beside 1 of every place
TOLD_SHARE = 0.1  # of the places, about: the mean weight stays near 1
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


def train_unet(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scenes: list[Scene],
    latents: Tensor,
    *,
    seed: str,
    checkpoints: Path,
    schedule: Schedule,
    phrases: Phrases,
    crowded: float = 0.0,
    reader: LatentReader | None = None,
    references: float = 1.0,
) -> Iterator[Step]:
    """Train in place: v-prediction on the scenes' latents, conditioned on token states of captions cut at 77 tokens.

    Args:
        seed: of the batches; each round has its own.
        phrases, crowded: of the captions, see `base_caption`.
        reader: has a caption's own facts weigh more, as in the later rounds.
        references: how much a fact told by reference weighs then, beside 1 of one told directly.
    """
    scheduler = build_scheduler()
    num_timesteps = scheduler.config.num_train_timesteps

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"{seed}/{step}")
        torch.manual_seed(rng.getrandbits(32))
        chosen = [rng.randrange(len(scenes)) for _ in range(schedule.batch_size)]
        drawn = [scenes[index] for index in chosen]
        captions = [
            Caption(())
            if rng.random() < DROPPED_CAPTIONS
            else base_caption(scene, rng, phrases=phrases, crowded=crowded)
            for scene in drawn
        ]
        batch = batch_captions(captions, drawn, tokenizer, length=LENGTH)
        clean = latents[chosen].float()
        noise = torch.randn(clean.shape)
        # The larger of two draws: what a picture shows is decided in its noisiest steps.
        timesteps = torch.randint(num_timesteps, (2, len(chosen))).amax(dim=0)
        # All that is random is drawn for the whole batch, so that a batch shared by several processes is the same.
        share = slice(*(len(chosen) * number // num_processes() for number in (rank(), rank() + 1)))
        clean, noise, timesteps = (part[share].to(unet.device) for part in (clean, noise, timesteps))
        with torch.no_grad():
            states = text_encoder(batch.ids[share].to(unet.device)).last_hidden_state
        noisy = scheduler.add_noise(clean, noise, timesteps)
        velocity = unet(noisy, timesteps, states).sample
        error = (velocity - scheduler.get_velocity(clean, noise, timesteps)).square().mean(dim=1)
        if reader is None:
            return error.mean()
        told = batch.only(batch.places != CUE)
        weights = torch.where(told.places == REFERENCE, references, 1.0)
        # The weight depends on the caption alone, so it moves no optimum.
        weight = 1 + TOLD_WEIGHT * told_cells(told, weights)[share].to(error)
        signal = scheduler.alphas_cumprod.to(error)[timesteps][:, None, None, None]
        predicted = signal.sqrt() * noisy - (1 - signal).sqrt() * velocity
        mine = (told.rows >= share.start) & (told.rows < share.stop)
        here = told.only(mine).to(unet.device)
        misread = cross_entropy(reader(predicted)[here.rows - share.start, here.slots], here.words, reduction="none")
        misread = misread @ weights[mine].to(misread) * num_processes() / weights.sum()
        return (error * weight).mean() / (1 + TOLD_WEIGHT * TOLD_SHARE) + READER_WEIGHT * misread

    yield from optimise(unet, loss_of, schedule, checkpoints)
