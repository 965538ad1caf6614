"""The models that every way works with: a stock pipeline, and its twin with a long text encoder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextConfig, CLIPTextModel

from ...errors import LongClipError
from ...pipelines import StableDiffusionLongPipeline
from ...positions import CLIP_LENGTH

__all__ = ["Pipes", "open_pipes", "random_pipes"]

NORM_SPREAD = 0.2


@dataclass(frozen=True)
class Pipes:
    """`stock` reads 77 tokens, `long` has the long encoder; the UNet of both comes from one file."""

    stock: StableDiffusionPipeline
    long: StableDiffusionLongPipeline


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


def random_pipes(pipes: Pipes, *, seed: int = 0, **config: Any) -> Pipes:
    """The same with text encoders of random weights (77 rows, and those stretched), sizes as `config` says.

    For what needs no trained weights: which tokens arrive, and what they cost. The UNet does not fit them.
    """
    stock = pipes.stock
    tokenizer = stock.tokenizer
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": CLIP_LENGTH, **special, **config}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_encoder = CLIPTextModel(CLIPTextConfig(**sizes)).eval().to(stock.device)
        # A new norm's rows have a mean of 0, by which lpw would divide; a trained one's do not.
        for parameter in text_encoder.final_layer_norm.parameters():
            torch.nn.init.normal_(parameter, parameter.mean().item(), NORM_SPREAD)
    components = {**stock.components, "text_encoder": text_encoder}
    short = StableDiffusionPipeline(**components, requires_safety_checker=False)
    return Pipes(short, StableDiffusionLongPipeline.from_pipe(short, longclip="stretch"))
