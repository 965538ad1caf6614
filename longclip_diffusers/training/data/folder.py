"""Data that is a folder: pictures, each with its caption in a text file."""

import os
import warnings
from pathlib import Path

from PIL import Image

from ...errors import LongClipError
from .columns import Texts
from .images import IMAGE_SUFFIXES, read_image
from .sample import BadSample, TextImageData

__all__ = ["FolderData", "open_folder"]


class FolderData(TextImageData):
    """Pictures below `root` and the text files with their captions, both as paths relative to it."""

    has_images = True

    def __init__(self, name: str, root: Path, pictures: Texts, captions: Texts):
        self.name, self.root = name, root
        self._pictures, self._captions = pictures, captions

    def __len__(self) -> int:
        return len(self._pictures)

    def label(self, index: int) -> str:
        """The caption's file."""
        return str(self.root / self._captions[index])

    def texts(self, index: int) -> tuple[str, str]:
        """The whole text file; there is no short caption."""
        try:
            return (self.root / self._captions[index]).read_text(encoding="utf-8-sig"), ""
        except (OSError, UnicodeDecodeError) as error:
            raise BadSample(f"{self.label(index)}: the caption cannot be read ({error}).") from error

    def image(self, index: int) -> Image.Image:
        """The picture's file."""
        path = self.root / self._pictures[index]
        return read_image(path, str(path))


def open_folder(root: Path, name: str) -> FolderData:
    """All pictures of the folder and those below, sorted by path, that have a caption.

    The caption of `a/1.jpg` is `a/1.txt`; that of `image/1.jpg` may also be `caption/1.txt`, as in Urban1k. A picture
    without is left out, with a warning that counts them. Hidden files and folders are not looked at.

    Raises:
        LongClipError: not a folder, or not one pair in it.
    """
    if not root.is_dir():
        raise LongClipError(f"{root} is not a folder. Expected pictures with .txt files beside them.")
    files = _files(root)
    pictures, captions, alone = Texts(), Texts(), []
    for path in sorted(path for path in files if path.lower().endswith(IMAGE_SUFFIXES)):
        caption = next((candidate for candidate in _caption_paths(path) if candidate in files), None)
        if caption is None:
            alone.append(path)
        else:
            pictures.append(path)
            captions.append(caption)
    if not len(pictures):
        raise LongClipError(
            f"{root} holds no pair: {len(alone)} pictures, none with a .txt of the same name beside it. "
            f"Expected 1.jpg and 1.txt; pictures are {', '.join(IMAGE_SUFFIXES)}."
        )
    if alone:
        warnings.warn(
            f"{root}: {len(alone)} pictures have no .txt and are left out, the first is {alone[0]}.", stacklevel=2
        )
    return FolderData(name, root, pictures, captions)


def _files(root: Path) -> set[str]:
    """Paths of all files below, relative, with /."""
    found = set()
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(folder).relative_to(root)
        found |= {(below / name).as_posix() for name in names if not name.startswith(".")}
    return found


def _caption_paths(picture: str) -> tuple[str, ...]:
    beside = Path(picture).with_suffix(".txt")
    parts = beside.parts
    if parts[-2:-1] != ("image",):
        return (beside.as_posix(),)
    return beside.as_posix(), Path(*parts[:-2], "caption", parts[-1]).as_posix()
