"""Any CLIP checkpoint -> transformers models, every weight accounted for: nothing missing, nothing left over."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextModel,
    CLIPTextModelWithProjection,
)

from ..errors import CheckpointError
from ..positions import CLIP_LENGTH, is_interpolated, stretch_positions
from ..text_encoder import num_positions
from .build import build_model, some_of
from .catalog import CATALOG
from .configs import kept_rows, text_config, vision_config
from .files import read_tensors
from .formats import POSITION_TABLE, read_layout
from .sources import Source, find_source

__all__ = [
    "Checkpoint",
    "load_clip",
    "load_long_text_encoder",
    "load_text_encoder",
    "model_of",
    "read_checkpoint",
    "text_encoder_of",
]

# Unknown parts of an image tower (a ResNet's, register tokens) do not hinder the text tower.
_VISION = ("visual.", "vision_model.", "visual_projection.")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's weights in transformers' names with one position table, and what else is known of it."""

    source: Source
    layout: str
    tensors: dict[str, Tensor]
    unknown: tuple[str, ...]

    @property
    def has_vision(self) -> bool:
        """Whether it holds an image tower that we know."""
        return "visual_projection.weight" in self.tensors


def load_text_encoder(
    source: str | Path,
    *,
    stretch: bool = False,
    dtype: torch.dtype | None = None,
    hidden_act: str | None = None,
    **hub: Any,
) -> CLIPTextModel:
    """The text tower of any CLIP or Long-CLIP checkpoint, with as many positions as its table has.

    Args:
        source: official or OpenAI-style .pt, safetensors, transformers folder, diffusers folder (its text_encoder/),
            our training output, or hub id.
        stretch: stretch a 77-row table by KPS; a longer one stays as it is.
        dtype: of the weights; None keeps the file's own where it has but one, else float32, which loses nothing.
        hidden_act: activation, for a bare state dict that does not use its width's usual one.
        **hub: subfolder, weight_name, revision, token, cache_dir, local_files_only.

    Raises:
        CheckpointError: unreadable, no text tower, weights missing, of a wrong shape, NaN or left over.
    """
    return text_encoder_of(read_checkpoint(source, stretch=stretch, **hub), dtype=dtype, hidden_act=hidden_act)


def load_long_text_encoder(source: str | Path, **options: Any) -> CLIPTextModel:
    """`load_text_encoder`, refusing a stock encoder of 77 positions (or fewer) where a long one is asked for.

    Raises:
        CheckpointError: as there, or the table is not longer than 77 rows.
    """
    encoder = load_text_encoder(source, **options)
    if num_positions(encoder) <= CLIP_LENGTH:
        raise CheckpointError(
            f"{source} has {num_positions(encoder)} position rows: a stock CLIP, not a Long-CLIP. Give a Long-CLIP "
            f'such as {CATALOG[0].repo}, longclip="stretch" to stretch the model\'s own encoder (untrained), or '
            "longclip=None to use it as it is, in windows of its own length."
        )
    return encoder


def load_clip(
    source: str | Path,
    *,
    stretch: bool = False,
    dtype: torch.dtype | None = None,
    hidden_act: str | None = None,
    **hub: Any,
) -> CLIPModel:
    """Both towers of a checkpoint; arguments and errors as `load_text_encoder`, and an image tower is required."""
    checkpoint = read_checkpoint(source, stretch=stretch, **hub)
    _refuse_unknown(checkpoint, checkpoint.unknown)
    if not checkpoint.has_vision:
        raise CheckpointError(f"{source} holds a text tower only. Give a whole CLIP, or use load_text_encoder.")
    config = _clip_config(checkpoint, hidden_act)
    return build_model(CLIPModel, config, checkpoint.tensors, source=checkpoint.source.name, dtype=dtype)


def text_encoder_of(
    checkpoint: Checkpoint, *, dtype: torch.dtype | None = None, hidden_act: str | None = None
) -> CLIPTextModel:
    """The text tower of a checkpoint that was read, as `load_text_encoder` gives it."""
    _refuse_unknown(checkpoint, [key for key in checkpoint.unknown if not key.startswith(_VISION)])
    tensors = {key: value for key, value in checkpoint.tensors.items() if key.startswith("text_model.")}
    config = text_config(checkpoint.tensors, checkpoint.source.config, hidden_act=hidden_act)
    return build_model(CLIPTextModel, config, tensors, source=checkpoint.source.name, dtype=dtype)


def model_of(checkpoint: Checkpoint) -> CLIPModel | CLIPTextModel | CLIPTextModelWithProjection:
    """The transformers model that holds all of a checkpoint: both towers, or text with or without projection."""
    _refuse_unknown(checkpoint, checkpoint.unknown)
    name, tensors = checkpoint.source.name, checkpoint.tensors
    if checkpoint.has_vision:
        return build_model(CLIPModel, _clip_config(checkpoint, None), tensors, source=name)
    config = text_config(tensors, checkpoint.source.config)
    text = {key: value for key, value in tensors.items() if key != "logit_scale"}  # text towers have none
    if "text_projection.weight" in text:
        return build_model(CLIPTextModelWithProjection, config, text, source=name)
    return build_model(CLIPTextModel, config, text, source=name)


def read_checkpoint(source: str | Path, *, stretch: bool = False, warn: bool = True, **hub: Any) -> Checkpoint:
    """The weights of any source under transformers' names, its table stretched if asked for.

    With `warn`, a long table in the file that is still an exact interpolation is a UserWarning.
    """
    found = find_source(source, **hub)
    raw: dict[str, Tensor] = {}
    for path in found.files:
        raw.update(read_tensors(path))
    try:
        layout = read_layout(raw, kept_rows=kept_rows(found.config))
    except CheckpointError as error:
        raise CheckpointError(f"{found.name}: {error}") from error
    tensors = layout.tensors
    if POSITION_TABLE not in tensors:
        raise CheckpointError(f"{found.name} lacks a position table ({POSITION_TABLE}); RoPE variants do not fit CLIP.")
    if warn and is_interpolated(tensors[POSITION_TABLE]):
        warnings.warn(
            f"{found.name}: position rows are untrained interpolation (stretched, not fine-tuned).", stacklevel=3
        )
    if stretch:
        tensors[POSITION_TABLE] = stretch_positions(tensors[POSITION_TABLE])
    return Checkpoint(found, layout.name, tensors, layout.unknown)


def _clip_config(checkpoint: Checkpoint, hidden_act: str | None) -> CLIPConfig:
    recorded = checkpoint.source.config
    text = text_config(checkpoint.tensors, recorded, hidden_act=hidden_act)
    vision = vision_config(checkpoint.tensors, recorded, hidden_act=hidden_act)
    return CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=vision.projection_dim)


def _refuse_unknown(checkpoint: Checkpoint, unknown: Iterable[str]) -> None:
    if names := list(unknown):
        raise CheckpointError(
            f"{checkpoint.source.name} holds {some_of(names)}, which no CLIP has: another "
            "architecture, or a damaged file."
        )
