"""Data that is webdataset tars: each is indexed once, and members are read where they lie; nothing is unpacked."""

import glob
import json
import re
import tarfile
import warnings
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import LongClipError
from .columns import as_text, find_columns
from .images import IMAGE_SUFFIXES, read_image
from .sample import BadSample, TextImageData

__all__ = ["TarData", "expand", "open_tars"]

Member = tuple[int, int]  # where its bytes begin in the tar, and how many they are; (0, 0) for none
NONE: Member = (0, 0)


class TarData(TextImageData):
    """Samples of tars by index: (N, 7) of tar, then offset and size of picture, text and JSON."""

    has_images = True

    def __init__(self, name: str, tars: list[Path], places: np.ndarray):
        self.name, self.tars, self._places = name, tars, places

    def __len__(self) -> int:
        return len(self._places)

    def label(self, index: int) -> str:
        """The tar and where in it the picture lies."""
        return f"{self.tars[self._places[index, 0]]}, picture at byte {self._places[index, 1]}"

    def texts(self, index: int) -> tuple[str, str]:
        """From the JSON's fields and the text; a `caption` in the JSON goes first."""
        text, fields = self._read(index, 3), self._read(index, 5)
        try:
            row = {"caption": text.decode("utf-8-sig")} if text else {}
            row |= json.loads(fields) if fields else {}
            columns = find_columns(row, self.label(index))
            captions = (row.get(column) if column else "" for column in (columns.caption, columns.short_caption))
            caption, short_caption = (as_text(cell, self.label(index)) for cell in captions)
            return caption, short_caption
        except (ValueError, TypeError) as error:  # not JSON, not UTF-8, not an object, no caption
            raise BadSample(f"{self.label(index)}: the caption cannot be read ({error}).") from error

    def image(self, index: int) -> Image.Image:
        """Decoded from the tar's bytes."""
        return read_image(self._read(index, 1), self.label(index))

    def _read(self, index: int, column: int) -> bytes:
        tar, (offset, size) = self._places[index, 0], self._places[index, column : column + 2]
        try:
            with self.tars[tar].open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            raise BadSample(f"{self.label(index)}: {error.strerror or error}.") from error


def open_tars(pattern: str, name: str) -> TarData:
    """The samples of all tars, in order: members that share their path up to the name's first dot are one.

    A sample is a picture with a `txt` or a `json`; others are left out, with a warning that counts them.

    Args:
        pattern: paths with `*`, `?`, `{000..012}` and `{a,b}`; a folder means the `.tar` files in it.

    Raises:
        LongClipError: no such file, not an uncompressed tar, or not one sample in them.
    """
    tars = expand(pattern)
    places, num_others = [], 0
    for number, path in enumerate(tars):
        for members in _samples(path):
            image = next((members[suffix] for suffix in IMAGE_SUFFIXES if suffix in members), NONE)
            text, fields = members.get(".txt", NONE), members.get(".json", NONE)
            if image == NONE or text == fields == NONE:
                num_others += 1
            else:
                places.append((number, *image, *text, *fields))
    if not places:
        raise LongClipError(
            f"{pattern} holds no sample: {num_others} groups of files, none a picture with .txt or .json."
        )
    if num_others:
        warnings.warn(f"{pattern}: {num_others} groups of files lack a picture or a caption: left out.", stacklevel=2)
    data = TarData(name, tars, np.array(places, dtype=np.int64))
    _check_captions(data)
    return data


def _check_captions(data: TarData) -> None:
    """Raise what the first sample's caption lacks (its message tells the fields there are) if no sample has one."""
    first: BadSample | None = None
    for index in range(len(data)):
        try:
            data.texts(index)
        except BadSample as error:
            first = first or error
        else:
            return
    if first:
        raise first


def expand(pattern: str) -> list[Path]:
    """The files that a pattern names, braces in their order, stars and folders sorted.

    Raises:
        LongClipError: a name without a file.
    """
    found: list[Path] = []
    for path in _braces(pattern):
        if Path(path).is_file():
            found.append(Path(path))
            continue
        stars = f"{glob.escape(path)}/*.tar" if Path(path).is_dir() else path
        matches = sorted(glob.glob(stars))  # noqa: PTH207  # Path.glob takes no absolute pattern
        if not matches:
            raise LongClipError(f"{stars}: there is no such file. Expected webdataset tars on this machine.")
        found += map(Path, matches)
    return found


def _braces(pattern: str) -> Iterator[str]:
    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*))\}", pattern)
    if match is None:
        yield pattern
        return
    first, last, words = match.groups()
    choices = words.split(",") if first is None else [f"{n:0{len(first)}}" for n in range(int(first), int(last) + 1)]
    for choice in choices:
        yield from _braces(pattern[: match.start()] + choice + pattern[match.end() :])


def _samples(path: Path) -> Iterator[dict[str, Member]]:
    """The members of each sample by suffix, lower case, with its dot."""
    try:
        for _, members in groupby(_members(path), key=lambda member: member[0]):
            yield {suffix: place for _, suffix, place in members}
    except (OSError, tarfile.TarError) as error:
        raise LongClipError(f"{path} cannot be read as an uncompressed tar ({error}).") from error


def _members(path: Path) -> Iterator[tuple[str, str, Member]]:
    with tarfile.open(path, "r:") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # else it keeps every header, 1 KB each
            folder, _, file = member.name.rpartition("/")
            stem, dot, suffix = file.partition(".")
            if member.isreg() and stem:
                yield f"{folder}/{stem}", f"{dot}{suffix}".lower(), (member.offset_data, member.size)
