"""The models that every way works with: a stock pipeline, and its twin with a long text encoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ...errors import LongClipError
from ...mixin import LongMixin
from ...pipelines import AutoLongPipeline, StableDiffusionLongPipeline
from ...positions import CLIP_LENGTH
from ...text_encoder import TextEncoder, inner_text_model
from ...tokenizer import load_tokenizer

__all__ = ["Half", "Pipes", "open_pipes", "random_pipes"]

NORM_SPREAD = 0.2
SECOND_PAD = "!"  # of SDXL's second tokenizer


@dataclass(frozen=True)
class Half:
    """Columns of the conditioning, of SDXL half of them: who makes them, in the stock pipeline and in the long one."""

    tokenizer: CLIPTokenizer
    encoders: tuple[nn.Module, nn.Module]

    @property
    def width(self) -> int:
        """How many columns."""
        return self.encoders[0].config.hidden_size  # type: ignore[union-attr,return-value]


@dataclass(frozen=True)
class Pipes:
    """`stock` reads 77 tokens, `long` has the long encoder; the UNet of both comes from one file."""

    stock: StableDiffusionPipeline | StableDiffusionXLPipeline
    long: LongMixin

    @property
    def halves(self) -> list[Half]:
        """Of the conditioning's columns, in order: one, of SDXL two."""
        suffixes = ("", "_2") if isinstance(self.stock, StableDiffusionXLPipeline) else ("",)
        return [
            Half(
                getattr(self.stock, f"tokenizer{suffix}"),
                (getattr(self.stock, f"text_encoder{suffix}"), getattr(self.long, f"text_encoder{suffix}")),
            )
            for suffix in suffixes
        ]


def open_pipes(model: Path, *, device: str = "cpu") -> Pipes:
    """Both pipelines of a diffusers folder whose sidecar names a long encoder, as the bundled model's does.

    Raises:
        LongClipError: no model there, or no long encoder for it.
    """
    if not (model / "model_index.json").is_file():
        raise LongClipError(
            f"{model} is no diffusers folder (it has no model_index.json). Give one, or none for the bundled model."
        )
    pipes = [each.from_pretrained(model) for each in (StableDiffusionPipeline, StableDiffusionLongPipeline)]
    for pipe in pipes:
        pipe.set_progress_bar_config(disable=True)
        pipe.to(device)
    return Pipes(*pipes)


def random_pipes(sizes: Sequence[Mapping[str, Any]], *, seed: int = 0, device: str = "cpu") -> Pipes:
    """Pipelines that only encode: text encoders of random weights (77 rows, and the first one stretched), no UNet.

    For what needs no trained weights: which tokens arrive, and what they cost.

    Args:
        sizes: of their `CLIPTextConfig`s, one for Stable Diffusion, two for SDXL.
    """
    tokenizers = [load_tokenizer(max_length=CLIP_LENGTH) for _ in sizes]
    for each in tokenizers[1:]:
        each.pad_token = SECOND_PAD
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoders = [
            _random_encoder(each, size, with_projection=number > 0)
            for number, (each, size) in enumerate(zip(tokenizers, sizes, strict=True))
        ]
    components: dict[str, Any] = {"vae": None, "unet": None, "scheduler": None}
    for suffix, each, encoder in zip(("", "_2"), tokenizers, encoders, strict=False):
        components |= {f"tokenizer{suffix}": each, f"text_encoder{suffix}": encoder}
    checker = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    stock: StableDiffusionPipeline | StableDiffusionXLPipeline
    if len(sizes) > 1:
        stock = StableDiffusionXLPipeline(**components)
    else:
        stock = StableDiffusionPipeline(**components, **checker)
    stock.to(device)
    return Pipes(stock, AutoLongPipeline.from_pipe(stock, longclip="stretch"))


def _random_encoder(tokenizer: CLIPTokenizer, size: Mapping[str, Any], *, with_projection: bool) -> TextEncoder:
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=CLIP_LENGTH, **special, **size)
    encoder: TextEncoder = (CLIPTextModelWithProjection if with_projection else CLIPTextModel)(config).eval()
    # A new norm's rows have a mean of 0, by which lpw would divide; a trained one's do not.
    norm: nn.Module = inner_text_model(encoder).final_layer_norm  # type: ignore[assignment]
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter, parameter.mean().item(), NORM_SPREAD)
    return encoder
