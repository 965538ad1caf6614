"""Texts and pictures to train with: what `--data SPEC` opens, held-out rows, and batches that a resumed run repeats.

A sample that cannot be used (`BadSample`: no such picture, broken or truncated, an empty caption; the whole policy is
in `images`) never stops a run: another takes its place, and the batch tells which one and why.
"""

from .batches import Batch, batches
from .captions import CAPTION_MODES, CaptionMode
from .order import BatchOrder
from .sample import BadSample, Sample, TextImageData
from .specs import KINDS, open_data
from .views import split, without_images

__all__ = [
    "CAPTION_MODES",
    "KINDS",
    "BadSample",
    "Batch",
    "BatchOrder",
    "CaptionMode",
    "Sample",
    "TextImageData",
    "batches",
    "open_data",
    "split",
    "without_images",
]
