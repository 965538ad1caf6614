"""Model folders on disk, as a command or a sample opens them."""

import json
from pathlib import Path

import toys
from diffusers import StableDiffusionPipeline

from longclip_diffusers.sidecar import SIDECAR
from longclip_diffusers.text_encoder import save_text_encoder

STEPS, GUIDANCE = 2, 3.0


def stock_model(folder: Path, *, length: int = toys.STOCK_LENGTH) -> Path:
    """A Stable Diffusion as diffusers saves it, with a text encoder of `length` rows."""
    StableDiffusionPipeline(**toys.stable_diffusion_components(length=length)).save_pretrained(folder)
    return folder


def miniature(folder: Path) -> Path:
    """The bundled model's layout: a stock model, a long encoder beside it, a sidecar that recommends settings."""
    stock_model(folder)
    save_text_encoder(toys.text_encoder(toys.LONG_LENGTH, seed=9), folder / "longclip" / "text_encoder")
    toys.tokenizer(toys.LONG_LENGTH).save_pretrained(folder / "longclip" / "tokenizer")
    sidecar = {"longclip": "longclip", "generation": {"steps": STEPS, "guidance": GUIDANCE}}
    (folder / SIDECAR).write_text(json.dumps(sidecar), encoding="utf-8")
    return folder
