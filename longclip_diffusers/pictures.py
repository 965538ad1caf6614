"""Pictures on disk and side by side: PNG files with their settings inside, and labelled comparisons."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from .errors import LongClipError

__all__ = [
    "metadata_text",
    "numbered",
    "reserved_path",
    "save_picture",
    "side_by_side",
    "whole_file",
    "writable_folder",
]

MARGIN = 6  # pixels around every picture and label of a comparison
LABEL_SHARE = 24  # a label's letters are this part of the picture's height, and at least
SMALLEST_COMPARED = 384  # pixels of height, below which a picture is enlarged by a whole factor
SMALLEST_LABEL = 11  # pixels, below which the default font cannot be read


def save_picture(picture: Image.Image, path: Path, metadata: Mapping[str, object]) -> None:
    """Write a PNG whose text chunks are `metadata`; the name appears only when the file is whole.

    Raises:
        LongClipError: the file cannot be written.
    """
    info = PngInfo()
    for key, value in metadata.items():
        info.add_itxt(key, metadata_text(value))
    with whole_file(path) as unfinished:
        picture.save(unfinished, format="PNG", pnginfo=info)


def metadata_text(value: object) -> str:
    """What a file says of a setting; half a surrogate pair, which JSON may hold, becomes a question mark."""
    return str(value).encode("utf-8", errors="replace").decode("utf-8")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to, which takes its name at the end: there is never half a file under it.

    Raises:
        LongClipError: the file cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.part")
    try:
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        unfinished.unlink(missing_ok=True)


def writable_folder(folder: Path) -> Path:
    """The folder, made where it is missing.

    Raises:
        LongClipError: it cannot be made, or files cannot be made in it.
    """
    probe = folder / ".longgen.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)  # several processes may look at once
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return folder


def numbered(path: Path, count: int) -> list[Path]:
    """`path` itself, or for several pictures `STEM-1.png`, `STEM-2.png` ..."""
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, count + 1)]


@contextmanager
def reserved_path(folder: Path, count: int = 1, *, stem: str = "longgen") -> Iterator[Path]:
    """The first of `STEM.png`, `STEM-2.png`, `STEM-3.png` ... whose `numbered` files do not exist yet.

    They are made, empty, so that nobody else takes them meanwhile; those still empty at the end are taken away.
    """
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    path = next(path for name in names if _make(numbered(path := folder / f"{name}.png", count)))
    try:
        yield path
    finally:
        for each in numbered(path, count):
            if each.is_file() and not each.stat().st_size:
                each.unlink()


def _make(paths: Sequence[Path]) -> bool:
    """Make all of the files, or none where there is one of them."""
    made: list[Path] = []
    for path in paths:
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            for each in made:
                each.unlink()
            return False
        made.append(path)
    return True


def side_by_side(pictures: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """One picture of several, from left to right, each under its label; small ones are enlarged to be looked at."""
    pictures = [(label, _enlarged(picture)) for label, picture in pictures]
    height = max(picture.height for _, picture in pictures)
    font = ImageFont.load_default(max(SMALLEST_LABEL, height // LABEL_SHARE))
    boxes = [font.getbbox(label) for label, _ in pictures]
    label_height = round(max(box[3] for box in boxes))
    widths = [max(picture.width, round(box[2])) for (_, picture), box in zip(pictures, boxes, strict=True)]
    size = (sum(widths) + MARGIN * (len(widths) + 1), height + label_height + 3 * MARGIN)
    canvas = Image.new("RGB", size, "white")
    draw, left = ImageDraw.Draw(canvas), MARGIN
    for (label, picture), width in zip(pictures, widths, strict=True):
        draw.text((left, MARGIN), label, fill="black", font=font)
        canvas.paste(picture, (left, label_height + 2 * MARGIN))
        left += width + MARGIN
    return canvas


def _enlarged(picture: Image.Image) -> Image.Image:
    times = -(-SMALLEST_COMPARED // picture.height)
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.LANCZOS)


def _cannot_write(path: Path, error: OSError) -> LongClipError:
    return LongClipError(f"{path} cannot be written: {error.strerror or error}. Name another place.")
