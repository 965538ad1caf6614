"""Any CLIP checkpoint -> transformers models, every weight accounted for: nothing missing, nothing left over."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTextModelWithProjection

from ..errors import CheckpointError
from ..positions import CLIP_LENGTH
from ..text_encoder import num_positions
from .build import build_model
from .catalog import CATALOG
from .checkpoint import Checkpoint, read_checkpoint
from .formats import VISION_NAMES, some_of

__all__ = [
    "load_clip",
    "load_long_text_encoder",
    "load_text_encoder",
    "long_only",
    "model_of",
    "projected_text_encoder_of",
    "text_encoder_of",
]

Encoder = TypeVar("Encoder", CLIPTextModel, CLIPTextModelWithProjection)
Kind = TypeVar("Kind", bound=CLIPTextModel | CLIPTextModelWithProjection)


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
    return text_encoder_of(read_checkpoint(source, stretch=stretch, hidden_act=hidden_act, **hub), dtype=dtype)


def load_long_text_encoder(source: str | Path, **options: Any) -> CLIPTextModel:
    """`load_text_encoder`, refusing a stock encoder of 77 positions (or fewer) where a long one is asked for.

    Raises:
        CheckpointError: as there, or the table is not longer than 77 rows.
    """
    return long_only(load_text_encoder(source, **options), source)


def long_only(encoder: Kind, source: str | Path) -> Kind:
    """The encoder itself; CheckpointError, which names `source`, if it has 77 positions or fewer."""
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
    checkpoint = read_checkpoint(source, stretch=stretch, hidden_act=hidden_act, **hub)
    _refuse_unknown(checkpoint, checkpoint.unknown)
    if not checkpoint.has_vision:
        raise CheckpointError(f"{source} holds a text tower only. Give a whole CLIP.")
    return _clip_of(checkpoint, dtype)


def text_encoder_of(checkpoint: Checkpoint, *, dtype: torch.dtype | None = None) -> CLIPTextModel:
    """The text tower of a checkpoint that was read, as `load_text_encoder` gives it."""
    return _tower_of(CLIPTextModel, checkpoint, ("text_model.",), dtype)


def projected_text_encoder_of(
    checkpoint: Checkpoint, *, dtype: torch.dtype | None = None
) -> CLIPTextModelWithProjection:
    """The same with its projection, as SDXL's second encoder has it; CheckpointError where there is none."""
    return _tower_of(CLIPTextModelWithProjection, checkpoint, ("text_model.", "text_projection."), dtype)


def _tower_of(cls: type[Encoder], checkpoint: Checkpoint, names: tuple[str, ...], dtype: torch.dtype | None) -> Encoder:
    _refuse_unknown(checkpoint, [key for key in checkpoint.unknown if not key.startswith(VISION_NAMES)])
    tensors = {key: value for key, value in checkpoint.tensors.items() if key.startswith(names)}
    return build_model(cls, checkpoint.text_config(), tensors, source=checkpoint.source.name, dtype=dtype)


def model_of(checkpoint: Checkpoint) -> CLIPModel | CLIPTextModel | CLIPTextModelWithProjection:
    """The transformers model that holds all of a checkpoint: both towers, or text with or without projection."""
    if checkpoint.has_vision:
        return _clip_of(checkpoint, None)
    if "text_projection.weight" not in checkpoint.tensors:
        return text_encoder_of(checkpoint)
    _refuse_unknown(checkpoint, checkpoint.unknown)
    # A text tower has no place for the scale that CLIP's loss needs.
    tensors = {key: value for key, value in checkpoint.tensors.items() if key != "logit_scale"}
    config = checkpoint.text_config()
    return build_model(CLIPTextModelWithProjection, config, tensors, source=checkpoint.source.name)


def _clip_of(checkpoint: Checkpoint, dtype: torch.dtype | None) -> CLIPModel:
    _refuse_unknown(checkpoint, checkpoint.unknown)
    text, vision = checkpoint.text_config(), checkpoint.vision_config()
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=vision.projection_dim
    )
    return build_model(CLIPModel, config, checkpoint.tensors, source=checkpoint.source.name, dtype=dtype)


def _refuse_unknown(checkpoint: Checkpoint, unknown: Iterable[str]) -> None:
    if names := list(unknown):
        raise CheckpointError(
            f"{checkpoint.source.name} holds {some_of(names)}, which no CLIP has: another "
            "architecture, or a damaged file."
        )
