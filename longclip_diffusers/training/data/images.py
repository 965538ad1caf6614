"""Any picture file as plain RGB, or a `BadSample` that says why not.

The policy:

- The first frame is read, and turned as its EXIF orientation says.
- CMYK, palettes, grey and one-bit pictures are converted; what is transparent shows white behind it.
- 16-bit grey is scaled to 8 bits, not clipped. 32-bit integers are taken for 16-bit ones (as which older Pillow opens
  them) and are bad beyond that range; floating-point pixels are bad: nobody knows their white.
- Missing, unreadable, broken and truncated files are bad, and so are those with more pixels than
  `PIL.Image.MAX_IMAGE_PIXELS` (a decompression bomb). Colour profiles are not applied: CLIP was trained without.
"""

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .sample import BadSample

__all__ = ["IMAGE_SUFFIXES", "read_image"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
WHITE_16 = 65535  # of a 16-bit picture


def read_image(source: Path | bytes, label: str) -> Image.Image:
    """The picture as RGB, upright.

    Args:
        source: a file, or a file's bytes.
        label: what a message calls it.

    Raises:
        BadSample: see the policy above.
    """
    if isinstance(source, Path) and not source.is_file():
        raise BadSample(f"{label}: there is no such file.")
    try:
        with warnings.catch_warnings():
            # Pillow also warns of EXIF blocks and palettes that it reads all the same.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source if isinstance(source, Path) else BytesIO(source)) as image:
                ImageOps.exif_transpose(image, in_place=True)
                plain = _to_rgb(image)
    except Exception as error:  # Pillow's decoders let through whatever error the parsing of broken bytes ends in
        raise BadSample(f"{label}: not a usable picture ({type(error).__name__}: {error}).") from error
    plain.info = {}  # profiles and thumbnails, which would travel with it between processes
    return plain


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose white is unknown")
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _to_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > WHITE_16:
        raise ValueError(f"32-bit pixels from {pixels.min()} to {pixels.max()}, whose white is unknown")
    return Image.fromarray(((pixels * 255 + WHITE_16 // 2) // WHITE_16).astype(np.uint8))
