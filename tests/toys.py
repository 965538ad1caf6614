"""Tiny models built in memory, offline, from fixed seeds: random weights, real classes, fast pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, MotionAdapter, UNet2DConditionModel
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

import longclip_diffusers.models

WIDTH = 32  # of the text encoder, and so of the UNet's cross-attention
PICTURE_SIZE = 64
STOCK_LENGTH = 77
LONG_LENGTH = 248
REAL_VOCABULARY_SIZE = 49_408

Module = TypeVar("Module", bound=torch.nn.Module)


def tokenizer(max_length: int = STOCK_LENGTH) -> CLIPTokenizer:
    """A tokenizer without files: every byte is a token (514 in all; BOS 512, EOS and padding 513)."""
    characters = list(bytes_to_unicode().values())
    tokens = [*characters, *(character + "</w>" for character in characters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=max_length)


def real_tokenizer(max_length: int = STOCK_LENGTH) -> CLIPTokenizer:
    """CLIP's own 49,408 tokens, from the bundled model; its encoders need `vocab_size=REAL_VOCABULARY_SIZE`."""
    folder = Path(longclip_diffusers.models.__file__).parent / "storybook" / "tokenizer"
    return CLIPTokenizer.from_pretrained(folder, model_max_length=max_length)


def text_encoder(length: int = STOCK_LENGTH, *, vocab_size: int = 514, seed: int = 0, **config: Any) -> CLIPTextModel:
    """A random CLIPTextModel with `length` positions, 3 layers, width 32 unless `config` says otherwise."""
    return _seeded(seed, lambda: CLIPTextModel(_text_config(length, vocab_size, **config)))


def text_encoder_with_projection(
    length: int = STOCK_LENGTH, *, vocab_size: int = 514, seed: int = 0, **config: Any
) -> CLIPTextModelWithProjection:
    """The same with a projection to `projection_dim` (24), as SDXL's second encoder has."""
    return _seeded(seed, lambda: CLIPTextModelWithProjection(_text_config(length, vocab_size, **config)))


def clip(length: int = STOCK_LENGTH, *, vocab_size: int = 514, seed: int = 0, **config: Any) -> CLIPModel:
    """A random CLIPModel: `text_encoder`'s text tower, 2 vision layers over 16 px patches of 32 px, features of 24."""
    text = _text_config(length, vocab_size, **config)
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 16,
        "initializer_factor": 5.0,
    }
    joint = CLIPConfig(text_config=text.to_dict(), vision_config=vision, projection_dim=text.projection_dim)
    return _seeded(seed, lambda: CLIPModel(joint))


def unet(*, in_channels: int = 4, seed: int = 1, **config: Any) -> UNet2DConditionModel:
    """A random UNet for 8x8 latents; `in_channels=9` for inpainting models."""
    settings = {**_unet_config(), **config}
    return _seeded(seed, lambda: UNet2DConditionModel(in_channels=in_channels, out_channels=4, **settings))


def controlnet(*, seed: int = 2, **config: Any) -> ControlNetModel:
    """A random ControlNet for `unet()` whose zero convolutions are not zero, so that it has an effect."""
    model = _seeded(seed, lambda: ControlNetModel(**{**_controlnet_config(), **config}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.controlnet_cond_embedding.conv_out.weight.normal_(0, 3.0, generator=generator)
        for block in [*model.controlnet_down_blocks, model.controlnet_mid_block]:
            block.weight.normal_(0, 0.1, generator=generator)
    return model


def motion_adapter(*, seed: int = 4, **config: Any) -> MotionAdapter:
    """A random motion adapter for `unet()`: what AnimateDiff adds to it."""
    sizes = {"block_out_channels": (16, 32), "motion_layers_per_block": 1, "motion_norm_num_groups": 8}
    return _seeded(seed, lambda: MotionAdapter(**sizes, **config))


def vae(*, seed: int = 3, **config: Any) -> AutoencoderKL:
    """A random autoencoder, 64x64x3 pictures <-> 8x8x4 latents."""
    blocks = 4
    return _seeded(
        seed,
        lambda: AutoencoderKL(
            block_out_channels=(8,) * blocks,
            down_block_types=("DownEncoderBlock2D",) * blocks,
            up_block_types=("UpDecoderBlock2D",) * blocks,
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=PICTURE_SIZE,
            **config,
        ),
    )


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule with deterministic steps."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )


def stable_diffusion_components(
    *, length: int = STOCK_LENGTH, inpaint: bool = False, **replaced: Any
) -> dict[str, Any]:
    """What `StableDiffusionPipeline(**components)` and its relatives take; `length` is both tokenizer's and encoder's.

    Any component may be given instead: `stable_diffusion_components(text_encoder=mine, tokenizer=mine_too)`.
    """
    components: dict[str, Callable[[], Any]] = {
        "vae": vae,
        "text_encoder": lambda: text_encoder(length),
        "tokenizer": lambda: tokenizer(length),
        "unet": lambda: unet(in_channels=9 if inpaint else 4),
        "scheduler": scheduler,
        "safety_checker": lambda: None,
        "feature_extractor": lambda: None,
    }
    built = {name: build() for name, build in components.items() if name not in replaced}
    return {**built, **replaced, "requires_safety_checker": False}


def _text_config(length: int, vocab_size: int, **config: Any) -> CLIPTextConfig:
    defaults = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "projection_dim": 24,
        "initializer_factor": 5.0,  # at 1 the random layers do next to nothing, and a wrong layer passes a test
    }
    special = {"bos_token_id": vocab_size - 2, "eos_token_id": vocab_size - 1, "pad_token_id": vocab_size - 1}
    return CLIPTextConfig(vocab_size=vocab_size, max_position_embeddings=length, **{**defaults, **special, **config})


def _unet_config() -> dict[str, Any]:
    return {**_shared_config(), "sample_size": 8, "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}


def _controlnet_config() -> dict[str, Any]:
    # Three halvings bring the 64 px condition to the 8 px latents: a stride-2 convolution per further entry.
    return {**_shared_config(), "conditioning_embedding_out_channels": (8, 8, 8, 8)}


def _shared_config() -> dict[str, Any]:
    return {
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    }


def _seeded(seed: int, build: Callable[[], Module]) -> Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval()
