"""A checkpoint as it was read: weights under one set of names, and the configs that they imply."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import CLIPTextConfig, CLIPVisionConfig

from ..errors import CheckpointError, LongClipError
from ..positions import is_interpolated, stretch_positions
from .configs import kept_rows, text_config, vision_config
from .files import read_tensors
from .formats import POSITION_TABLE, read_layout
from .sources import Source, find_source

__all__ = ["Checkpoint", "read_checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """Weights in transformers' names with one position table, where they came from, and names that no CLIP has."""

    source: Source
    layout: str
    tensors: dict[str, Tensor]
    unknown: tuple[str, ...]
    hidden_act: str | None = None  # what the caller says of the activation

    @property
    def has_vision(self) -> bool:
        """Whether it holds an image tower of the kind that transformers' CLIPModel has."""
        return any(key.startswith("vision_model.") for key in self.tensors)

    def text_config(self) -> CLIPTextConfig:
        """The text tower's config; CheckpointError where the weights imply none."""
        with _named(self.source.name):
            return text_config(self.tensors, self.source.config, hidden_act=self.hidden_act)

    def vision_config(self) -> CLIPVisionConfig:
        """The image tower's config; CheckpointError where the weights imply none."""
        with _named(self.source.name):
            return vision_config(self.tensors, self.source.config, hidden_act=self.hidden_act)


def read_checkpoint(
    source: str | Path,
    *,
    stretch: bool = False,
    hidden_act: str | None = None,
    warn: bool = True,
    prefix: str = "",
    **hub: Any,
) -> Checkpoint:
    """The weights of any source that `load_text_encoder` takes, on the CPU, in the file's dtypes.

    Args:
        stretch: stretch a 77-row table by KPS.
        hidden_act: the activation, where neither a config nor the width tells the right one.
        warn: give a UserWarning where a long table in the file is still an exact interpolation.
        prefix: what the names of the wanted weights begin with, in a file that holds a whole model.
        **hub: as `find_source`.

    Raises:
        CheckpointError: unreadable, or without a text tower that has a position table.
    """
    found = find_source(source, **hub)
    raw: dict[str, Tensor] = {}
    for path in found.files:
        raw.update(read_tensors(path, prefix=prefix))
    with _named(found.name):
        layout = read_layout(raw, kept_rows=kept_rows(found.config))
        tensors = layout.tensors
        if POSITION_TABLE not in tensors:
            raise CheckpointError(f"it lacks a position table ({POSITION_TABLE}); RoPE variants do not fit CLIP.")
        if warn and is_interpolated(tensors[POSITION_TABLE]):
            message = "its position rows are untrained interpolation: the table was stretched but not fine-tuned"
            warnings.warn(f"{found.name}: {message}.", stacklevel=3)  # 3: the caller of load_text_encoder
        if stretch:
            tensors[POSITION_TABLE] = stretch_positions(tensors[POSITION_TABLE])
    return Checkpoint(found, layout.name, tensors, layout.unknown, hidden_act)


@contextmanager
def _named(source: str) -> Iterator[None]:
    """Puts the checkpoint's name before what pure functions complain of."""
    try:
        yield
    except LongClipError as error:
        raise CheckpointError(f"{source}: {error}") from error
