"""`longclip convert`: a checkpoint in another layout."""

from pathlib import Path
from typing import Literal

import tyro

from .exits import UsageError

__all__ = ["convert"]

FILES = {".safetensors": "safetensors", ".pt": "openai"}


def convert(
    source: tyro.conf.Positional[str],
    out: tyro.conf.Positional[Path],
    /,
    *,
    to: Literal["hf", "openai", "safetensors", "diffusers"] = "hf",
    stretch: bool = False,
    hidden_act: str | None = None,
    overwrite: bool = False,
    subfolder: str | None = None,
    weight_name: str | None = None,
    revision: str | None = None,
) -> None:
    """Write a CLIP or Long-CLIP checkpoint in another layout.

    Args:
        source: File, folder or hub id (owner/name).
        out: File (openai, safetensors) or folder (hf, diffusers) to write.
        to: hf: a transformers folder. openai: a .pt for the official Long-CLIP code. safetensors: the text tower in
            one file, for ComfyUI. diffusers: text_encoder/ and tokenizer/, for longclip=.
        stretch: Stretch a table of 77 rows first (untrained).
        hidden_act: Activation of a bare state dict (quick_gelu or gelu) where it is not the usual one of its width.
        overwrite: Replace OUT where it exists.
        subfolder: Folder inside the source to look in.
        weight_name: File to read where the source holds several.
        revision: Branch, tag or commit of a hub id.
    """
    if to in ("hf", "diffusers") and out.suffix in FILES:
        raise UsageError(f"--to {to} writes a folder, and {out} is named like a file: give --to {FILES[out.suffix]}.")
    from ..checkpoints import convert_checkpoint

    options = {
        "stretch": stretch,
        "hidden_act": hidden_act,
        "subfolder": subfolder,
        "weight_name": weight_name,
        "revision": revision,
    }
    print(convert_checkpoint(source, out, to=to, overwrite=overwrite, **options))
