"""CLIP and Long-CLIP checkpoints of every layout: read, build, inspect, convert.

Names are imported on first use: ComfyUI needs `files` and `formats` only, without transformers' models.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .catalog import long_clip_for_width
    from .export import convert_checkpoint
    from .load import load_clip, load_long_text_encoder, load_text_encoder
    from .report import CheckpointReport, inspect_checkpoint

__all__ = [
    "CheckpointReport",
    "convert_checkpoint",
    "inspect_checkpoint",
    "load_clip",
    "load_long_text_encoder",
    "load_text_encoder",
    "long_clip_for_width",
]


def __getattr__(name: str) -> Any:
    for module in ("catalog", "export", "load", "report") if name in __all__ else ():
        home = import_module(f".{module}", __name__)
        if name in home.__all__:
            return getattr(home, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
