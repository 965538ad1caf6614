"""Reads every slot back from the pixels of a picture."""

import numpy as np
from PIL import Image

from ..errors import LongClipError
from .render import SIZE
from .slots import SLOT_INDEX, SLOTS, Look, Rgb, Slot

__all__ = ["read_picture"]


def read_picture(picture: Image.Image) -> dict[str, str]:
    """The word of every slot: the one whose looks are nearest to the median pixels of the slot's cores.

    Where a core shows what is behind the slot (no cloud: the sky), that is the paint which the same picture's sky was
    read to have.

    Args:
        picture: 128 x 128 pixels, as `render` paints and the bundled model draws them.

    Raises:
        LongClipError: the picture has another size.
    """
    if picture.size != (SIZE, SIZE):
        raise LongClipError(
            f"The storybook's checker reads {SIZE}x{SIZE} pictures, got {picture.width}x{picture.height}."
        )
    pixels = np.asarray(picture.convert("RGB"), dtype=float)
    found: dict[str, str] = {}
    for slot in SLOTS:  # what is behind others stands before them in the table
        medians = [
            np.median(pixels[top:bottom, left:right].reshape(-1, 3), axis=0) for left, top, right, bottom in slot.cores
        ]
        found[slot.name] = min(slot.words, key=lambda word: _distance(slot, word, medians, found))
    return found


def _distance(slot: Slot, word: str, medians: list[np.ndarray], found: dict[str, str]) -> float:
    looks = (_paint(look, found) for look in slot.looks[word])
    return sum(float(np.square(median - look).sum()) for median, look in zip(medians, looks, strict=True))


def _paint(look: Look, found: dict[str, str]) -> Rgb:
    if not isinstance(look, str):
        return look
    return _paint(SLOTS[SLOT_INDEX[look]].looks[found[look]][0], found)
