"""Tiny SDXL models, base and refiner: two encoders of unequal widths, the second projected and padded with "!"."""

from collections.abc import Callable
from typing import Any

import toys
from diffusers import ControlNetModel, UNet2DConditionModel
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

WIDTH_2 = 48
PROJECTION = 24
TIME_WIDTH = 8  # of each number that SDXL tells the UNet beside the text: sizes, crop, aesthetic score


def tokenizer_2(max_length: int = toys.STOCK_LENGTH) -> CLIPTokenizer:
    """The toy tokenizer with SDXL's second padding token, id 0."""
    tokenizer = toys.tokenizer(max_length)
    tokenizer.pad_token = "!"
    return tokenizer


def text_encoder_2(length: int = toys.STOCK_LENGTH, *, seed: int = 7) -> CLIPTextModelWithProjection:
    """A random second encoder, wider and deeper than the first and with another activation, as bigG is."""
    config = {"hidden_size": WIDTH_2, "num_hidden_layers": 4, "hidden_act": "gelu", "projection_dim": PROJECTION}
    return toys.text_encoder_with_projection(length, seed=seed, **config)


def unet(*, in_channels: int = 4, refiner: bool = False) -> UNet2DConditionModel:
    """`toys.unet` with SDXL's added conditions."""
    return toys.unet(in_channels=in_channels, **_added(refiner=refiner))


def controlnet() -> ControlNetModel:
    """`toys.controlnet` with SDXL's added conditions."""
    return toys.controlnet(**_added(refiner=False))


def components(
    *, length: int = toys.STOCK_LENGTH, length_2: int = toys.STOCK_LENGTH, inpaint: bool = False, **replaced: Any
) -> dict[str, Any]:
    """What `StableDiffusionXLPipeline(**components)` and its relatives take; any may be given instead."""
    build: dict[str, Callable[[], Any]] = {
        "vae": toys.vae,
        "text_encoder": lambda: toys.text_encoder(length),
        "tokenizer": lambda: toys.tokenizer(length),
        "text_encoder_2": lambda: text_encoder_2(length_2),
        "tokenizer_2": lambda: tokenizer_2(length_2),
        "unet": lambda: unet(in_channels=9 if inpaint else 4),
        "scheduler": toys.scheduler,
    }
    return {**{name: make() for name, make in build.items() if name not in replaced}, **replaced}


def refiner_components(*, length: int = toys.STOCK_LENGTH, **replaced: Any) -> dict[str, Any]:
    """What the refiner, an image-to-image pipeline without a first encoder, takes."""
    first = {"text_encoder": None, "tokenizer": None}
    made = components(length_2=length, unet=unet(refiner=True), **first, **replaced)
    return {**made, "requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False}


def _added(*, refiner: bool) -> dict[str, Any]:
    num_numbers = 5 if refiner else 6
    return {
        "cross_attention_dim": WIDTH_2 if refiner else toys.WIDTH + WIDTH_2,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": TIME_WIDTH,
        "projection_class_embeddings_input_dim": num_numbers * TIME_WIDTH + PROJECTION,
    }
