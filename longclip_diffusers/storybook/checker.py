"""Reads every slot's colour back from the pixels of a picture."""

import numpy as np
from PIL import Image

from ..errors import LongClipError
from .render import SIZE
from .slots import SLOTS

__all__ = ["read_picture"]

_PALETTES = {slot.name: np.array([slot.colours[word] for word in slot.words], dtype=float) for slot in SLOTS}


def read_picture(picture: Image.Image) -> dict[str, str]:
    """The colour word of every slot: the palette colour nearest to the median pixel of the slot's core.

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
    found = {}
    for slot in SLOTS:
        left, top, right, bottom = slot.core
        median = np.median(pixels[top:bottom, left:right].reshape(-1, 3), axis=0)
        distances = np.square(_PALETTES[slot.name] - median).sum(axis=1)
        found[slot.name] = slot.words[int(distances.argmin())]
    return found
