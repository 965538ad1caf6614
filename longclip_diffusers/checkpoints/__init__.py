"""CLIP and Long-CLIP checkpoints of every layout: read, build, inspect, convert."""

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
