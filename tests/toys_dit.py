"""Tiny Stable Diffusion 3 and Flux: CLIP encoders of `toys`, a T5 of one layer, a transformer of one block."""

from typing import Any

import toys
import toys_xl
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

T5_WIDTH = 96  # at least both CLIPs' together, which SD3 pads to it


def t5_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of bytes that ends with </s> and pads, as T5's does."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<pad>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


def t5() -> T5EncoderModel:
    """A random T5 encoder for it."""
    config = T5Config(vocab_size=258, d_model=T5_WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return toys._seeded(11, lambda: T5EncoderModel(config))


def vae() -> AutoencoderKL:
    """`toys.vae` as later models have it: shifted, without the quantising convolutions."""
    without = {"use_quant_conv": False, "use_post_quant_conv": False}
    return toys.vae(shift_factor=0.1, scaling_factor=1.5, **without)


def sd3_components(*, length: int = toys.STOCK_LENGTH, length_2: int = toys.STOCK_LENGTH) -> dict[str, Any]:
    """What `StableDiffusion3Pipeline(**components)` takes."""
    transformer = {"num_attention_heads": 2, "attention_head_dim": 8, "caption_projection_dim": 16}
    transformer |= {"sample_size": 8, "patch_size": 1, "in_channels": 4, "out_channels": 4, "num_layers": 1}
    sizes = {"joint_attention_dim": T5_WIDTH, "pooled_projection_dim": 2 * toys_xl.PROJECTION}
    return {
        "transformer": toys._seeded(12, lambda: SD3Transformer2DModel(**transformer, **sizes)),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": vae(),
        "text_encoder": toys.text_encoder_with_projection(length),
        "tokenizer": toys.tokenizer(length),
        "text_encoder_2": toys_xl.text_encoder_2(length_2),
        "tokenizer_2": toys_xl.tokenizer_2(length_2),
        "text_encoder_3": t5(),
        "tokenizer_3": t5_tokenizer(),
    }


def flux_components(*, length: int = toys.STOCK_LENGTH) -> dict[str, Any]:
    """What `FluxPipeline(**components)` takes; latents are packed two by two, so 16 channels reach the transformer."""
    transformer = {"num_attention_heads": 2, "attention_head_dim": 16, "axes_dims_rope": (4, 4, 8)}
    transformer |= {"in_channels": 16, "num_layers": 1, "num_single_layers": 1, "guidance_embeds": False}
    sizes = {"joint_attention_dim": T5_WIDTH, "pooled_projection_dim": toys.WIDTH}
    return {
        "transformer": toys._seeded(13, lambda: FluxTransformer2DModel(**transformer, **sizes)),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": vae(),
        "text_encoder": toys.text_encoder(length),
        "tokenizer": toys.tokenizer(length),
        "text_encoder_2": t5(),
        "tokenizer_2": t5_tokenizer(),
    }
