"""What a checkpoint is, in ten lines, without building a model."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..positions import CLIP_LENGTH, is_interpolated
from .checkpoint import read_checkpoint
from .files import sha256_of
from .formats import POSITION_TABLE, some_of

__all__ = ["CheckpointReport", "inspect_checkpoint"]


@dataclass(frozen=True)
class CheckpointReport:
    """Facts about a checkpoint; `str()` is the report that `longclip inspect` prints."""

    source: str
    layout: str
    text_tower: str
    vision_tower: str
    position_rows: int
    positions: str  # "stock", "trained" or "interpolated"
    dtypes: dict[str, int]  # number of tensors of each
    unusable: tuple[str, ...]  # tensors with NaN or infinite values
    unknown: tuple[str, ...]  # names that no CLIP has
    sha256: dict[str, str]  # of each file by its path

    def __str__(self) -> str:
        meaning = {
            "stock": "a stock CLIP's length",
            "trained": "trained",
            "interpolated": "untrained interpolation of a shorter table",
        }
        lines = {
            "source": self.source,
            "layout": self.layout,
            "text tower": self.text_tower,
            "vision tower": self.vision_tower,
            "positions": f"{self.position_rows} rows, {meaning[self.positions]}",
            "dtype": ", ".join(f"{name} ({count} tensors)" for name, count in self.dtypes.items()),
            "NaN or inf": some_of(self.unusable) or "none",
            "unknown": some_of(self.unknown) or "none",
        }
        rows = [f"{name:13} {value}" for name, value in lines.items()]
        return "\n".join([*rows, *(f"{'sha256':13} {digest}  {path}" for path, digest in self.sha256.items())])


def inspect_checkpoint(source: str | Path, **hub: Any) -> CheckpointReport:
    """The report on any source that `load_text_encoder` takes, also on one with NaN values or unknown weights.

    Raises:
        CheckpointError: unreadable, or no text tower.
    """
    checkpoint = read_checkpoint(source, warn=False, **hub)
    tensors = checkpoint.tensors
    table = tensors[POSITION_TABLE]
    text = checkpoint.text_config()
    projection = f", projection {text.projection_dim}" if "text_projection.weight" in tensors else ""
    vision = "none"
    if checkpoint.has_vision:
        image = checkpoint.vision_config()
        vision = f"{_sizes(image)}, patch {image.patch_size}, image {image.image_size}"
    trained = "stock" if len(table) <= CLIP_LENGTH else "interpolated" if is_interpolated(table) else "trained"
    return CheckpointReport(
        source=checkpoint.source.name,
        layout=checkpoint.layout,
        text_tower=f"{_sizes(text)}{projection}, vocabulary {text.vocab_size}",
        vision_tower=vision,
        position_rows=len(table),
        positions=trained,
        dtypes=dict(Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())),
        unusable=tuple(key for key, tensor in tensors.items() if not tensor.float().isfinite().all()),
        unknown=checkpoint.unknown,
        sha256={str(path): sha256_of(path) for path in checkpoint.source.files},
    )


def _sizes(config: Any) -> str:
    return (
        f"width {config.hidden_size}, {config.num_hidden_layers} layers, {config.num_attention_heads} heads, "
        f"{config.hidden_act}"
    )
