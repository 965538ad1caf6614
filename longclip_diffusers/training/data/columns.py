"""Columns: which of a file's names hold what, a cell as text, and a million texts in little memory."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ...errors import LongClipError
from .sample import BadSample

__all__ = ["Columns", "Texts", "as_text", "find_columns"]

# In order of preference, lower case: ours, then those of open_clip, DOCCI and Hugging Face's image folders.
CAPTION_NAMES = ("caption", "long_caption", "caption_long", "text", "description", "title")
SHORT_NAMES = ("short_caption", "caption_short")
IMAGE_NAMES = ("image", "filepath", "image_path", "image_file", "file_name", "filename")


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns; None where it has none of the kind."""

    caption: str
    short_caption: str | None
    image: str | None


def find_columns(names: Iterable[str], where: str) -> Columns:
    """The columns among `names`, whatever their case.

    Raises:
        LongClipError: no caption column; the message tells the columns there are.
    """
    there = {name.strip().lower(): name for name in names}

    def first(wanted: tuple[str, ...]) -> str | None:
        return next((there[name] for name in wanted if name in there), None)

    caption = first(CAPTION_NAMES)
    if caption is None:
        raise LongClipError(
            f"{where}: there is no caption. Expected a column {', '.join(CAPTION_NAMES)}; "
            f"the columns there are: {', '.join(there.values()) or 'none'}."
        )
    return Columns(caption, first(SHORT_NAMES), first(IMAGE_NAMES))


def as_text(value: Any, where: str) -> str:
    """A cell as text: of several captions the first; "" for none.

    Raises:
        BadSample: it is neither text nor a list of texts.
    """
    if isinstance(value, list):
        value = value[0] if value else None
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadSample(f"{where}: {value!r:.40} is not a text. Expected a string, or a list of strings.")
    return value


class Texts:
    """An append-only list of texts in two flat buffers.

    A million `str` in a list would be copied to every worker process, by pickling or by their reference counts.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])

    def append(self, text: str) -> None:
        """Add one text; half a surrogate pair, which JSON may hold and no tokenizer takes, becomes a question mark."""
        self._bytes += text.encode("utf-8", errors="replace")
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        return self._bytes[self._ends[index] : self._ends[index + 1]].decode("utf-8")
