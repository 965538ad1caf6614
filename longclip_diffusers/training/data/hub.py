"""Data through Hugging Face `datasets`: a folder, one written by `save_to_disk`, or a name on the hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ...errors import LongClipError
from .columns import Columns, as_text, find_columns
from .images import read_image
from .sample import BadSample, TextImageData

if TYPE_CHECKING:
    import datasets

__all__ = ["HubData", "open_hub"]

SAVED_MARKS = ("state.json", "dataset_dict.json")  # one of them lies in every folder of `save_to_disk`


class HubData(TextImageData):
    """Rows of a `datasets.Dataset`; pictures stay undecoded there, so that our own policy reads them."""

    def __init__(self, name: str, table: "datasets.Dataset", columns: Columns):
        self.name, self.columns = name, columns
        self.has_images = columns.image is not None
        wanted = [column for column in (columns.caption, columns.short_caption) if column]
        self._texts = table.select_columns(wanted)
        self._images: Any = table.select_columns([columns.image]) if columns.image else None

    def __len__(self) -> int:
        return len(self._texts)

    def texts(self, index: int) -> tuple[str, str]:
        """Of the row; of several captions the first."""
        row, label = self._texts[index], self.label(index)
        short = self.columns.short_caption
        return as_text(row[self.columns.caption], label), as_text(row[short], label) if short else ""

    def image(self, index: int) -> Image.Image:
        """From the row's bytes, or the file that it names."""
        cell = self._images[index][self.columns.image] or {}
        if not (cell.get("bytes") or cell.get("path")):
            raise BadSample(f"{self.label(index)}: it has no picture.")
        return read_image(cell["bytes"] or Path(cell["path"]), self.label(index))


def open_hub(source: str, split: str | None, name: str) -> HubData:
    """The rows of one split; the picture is the column of that type, the caption is found by name.

    Args:
        source: a folder, or a data set's name on the hub.
        split: None = the only one, or "train".

    Raises:
        LongClipError: `datasets` is not installed, cannot open it, has no such split, or there is no caption.
    """
    try:
        import datasets
    except ImportError as error:
        raise LongClipError(
            f'{name} is read by Hugging Face datasets: pip install "longclip-diffusers[train]"'
        ) from error
    try:
        saved = any((Path(source) / mark).is_file() for mark in SAVED_MARKS)
        opened = datasets.load_from_disk(source) if saved else datasets.load_dataset(source)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise LongClipError(f"{source} cannot be opened as a data set: {error}") from error
    table = _pick_split(opened, split, source) if isinstance(opened, datasets.DatasetDict) else opened
    columns = find_columns(table.features, source)
    pictures = [column for column, feature in table.features.items() if isinstance(feature, datasets.Image)]
    if pictures:
        table = table.cast_column(pictures[0], datasets.Image(decode=False))
    return HubData(name, table, Columns(columns.caption, columns.short_caption, next(iter(pictures), None)))


def _pick_split(splits: "datasets.DatasetDict", split: str | None, source: str) -> "datasets.Dataset":
    wanted = split or (next(iter(splits)) if len(splits) == 1 else "train")
    if wanted not in splits:
        raise LongClipError(f"{source} has no split {wanted!r}. There are: {', '.join(splits)}. Say hf:NAME:SPLIT.")
    return splits[wanted]
