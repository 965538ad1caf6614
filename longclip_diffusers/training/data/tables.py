"""Data that is one text file: JSON lines, CSV and TSV, plain lines, and ShareGPT4V's JSON."""

import csv
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from PIL import Image

from ...errors import LongClipError
from .columns import Texts, as_text, find_columns
from .images import read_image
from .sample import BadSample, TextImageData

__all__ = ["TableData", "open_csv", "open_jsonl", "open_sharegpt4v", "open_txt"]

DELIMITERS = ",\t;|"
Row = tuple[str, str, str]  # caption, short caption, path of the picture; "" for none


class TableData(TextImageData):
    """Rows in memory; pictures are files below `root` (an absolute path stays what it is)."""

    def __init__(self, name: str, rows: Iterable[Row], root: Path):
        self.name, self.root = name, root
        self._captions, self._shorts, self._paths = Texts(), Texts(), Texts()
        columns = (self._captions, self._shorts, self._paths)
        self.has_images = False
        for row in rows:
            for column, text in zip(columns, row, strict=True):
                column.append(text)
            self.has_images |= bool(row[2])
        if not len(self):
            raise LongClipError(f"{name} holds no text: there is nothing to train with.")

    def __len__(self) -> int:
        return len(self._captions)

    def texts(self, index: int) -> tuple[str, str]:
        """Of the row."""
        return self._captions[index], self._shorts[index]

    def image(self, index: int) -> Image.Image:
        """The file that the row names."""
        path = self._paths[index]
        if not path:
            raise BadSample(f"{self.label(index)}: it names no picture, as other rows do.")
        return read_image(self.root / path, str(self.root / path))


def open_jsonl(path: Path, name: str) -> TableData:
    """A JSON object a line; the first one tells which keys hold what.

    Raises:
        LongClipError: unreadable, a line that is no JSON object, or no caption.
    """
    with _opened(path) as file:
        return TableData(name, _rows(_json_lines(file, path)), path.parent)


def open_csv(path: Path, name: str) -> TableData:
    """A table with a header; the delimiter is a `.tsv`'s tab, else the one that the header holds most of.

    Raises:
        LongClipError: unreadable, a row with more cells than the header, or no caption.
    """
    with _opened(path) as file:
        return TableData(name, _rows(_csv_rows(file, path)), path.parent)


def open_txt(path: Path, name: str) -> TableData:
    """A text a line, without pictures; empty lines are skipped.

    Raises:
        LongClipError: unreadable, or without a text.
    """
    with _opened(path) as file:
        return TableData(name, ((line, "", "") for line in file if line.strip()), path.parent)


def open_sharegpt4v(path: Path, image_root: Path, name: str) -> TableData:
    """ShareGPT4V's JSON: the second turn of every conversation is the caption of `image`, a path below `image_root`.

    Raises:
        LongClipError: unreadable, not of this schema, or there is no such `image_root`.
    """
    if not image_root.is_dir():
        raise LongClipError(f"{image_root} is not a folder. Expected the pictures: sharegpt4v:JSON:IMAGE_ROOT.")
    with _opened(path) as file:
        try:
            # Every object becomes what we want of it at once: the whole tree of a million rows would take gigabytes.
            rows = json.load(file, object_hook=_conversation)
        except json.JSONDecodeError as error:
            raise LongClipError(f"{path}: not JSON ({error}).") from error
    entries = rows if isinstance(rows, list) else [rows]
    wrong = next((number for number, entry in enumerate(entries, 1) if not isinstance(entry, tuple)), None)
    if wrong or not isinstance(rows, list):
        raise LongClipError(
            f"{path}: entry {wrong or 1} is not ShareGPT4V's. "
            'Expected [{"image": PATH, "conversations": [QUESTION, {"value": CAPTION}]}, ...].'
        )
    return TableData(name, rows, image_root)


def _conversation(entry: dict[str, Any]) -> Any:
    if isinstance(entry.get("value"), str) and "conversations" not in entry:
        return entry["value"]
    turns, image = entry.get("conversations"), entry.get("image")
    if isinstance(turns, list) and len(turns) > 1 and isinstance(turns[1], str) and isinstance(image, str):
        return turns[1].replace("\n", " "), "", image
    return entry


def _rows(cells: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[Row]:
    """Rows of (where it stands, its cells); the columns are those of the first."""
    columns = None
    for where, row in cells:
        is_first = columns is None
        columns = columns or find_columns(row, where)
        names = (columns.caption, columns.short_caption, columns.image)
        try:
            caption, short_caption, image = (as_text(row.get(name), where) if name else "" for name in names)
        except BadSample:
            if is_first:
                raise  # then the columns mean something else
            # As a row without a caption, which is a bad sample when its turn comes.
            caption, short_caption, image = "", "", ""
        yield caption, short_caption, image


def _json_lines(file: TextIO, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise LongClipError(f"{path}, line {number}: not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise LongClipError(f"{path}, line {number}: expected a JSON object with image and caption, got {line:.40}")
        yield f"{path}, line {number}", row


def _csv_rows(file: TextIO, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    header = file.readline()
    file.seek(0)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(DELIMITERS, key=header.count)
    # Strict, or a quotation mark left open swallows the rows after it without a word.
    reader = csv.DictReader(file, delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if None in row:
                raise LongClipError(
                    f"{path}, line {reader.line_num}: more cells than the header's {len(reader.fieldnames or ())}. "
                    "Put a caption that holds the delimiter between double quotes."
                )
            yield f"{path}, line {reader.line_num}", row
    except csv.Error as error:
        raise LongClipError(
            f"{path}, after line {reader.line_num}: {error}. "
            "Put a caption with quotation marks between quotation marks, and double those inside."
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except OSError as error:
        raise LongClipError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise LongClipError(f"{path} is not UTF-8 text ({error.reason}). Save it as UTF-8.") from error
