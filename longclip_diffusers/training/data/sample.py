"""What every kind of data gives: a caption, a short caption and perhaps a picture, by index."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from PIL import Image

from ...errors import LongClipError
from ...sentences import split_sentences

__all__ = ["BadSample", "Sample", "TextImageData"]


class BadSample(LongClipError):
    """One sample that cannot be used: its message names the file, or the row, and the reason."""


@dataclass(frozen=True)
class Sample:
    """A long and a short text, neither ever empty, and the RGB picture, None where the data has no pictures."""

    caption: str
    short_caption: str
    image: Image.Image | None = None


class TextImageData(ABC):
    """A map from index to `Sample`: what torch calls a map-style dataset. It can be pickled, for worker processes.

    Attributes:
        name: the SPEC that opened it, for messages.
        has_images: whether samples have pictures.
        group_size: how many neighbours, from a multiple of it on, are so alike that they should meet in a batch.
    """

    name: str
    has_images: bool
    group_size: int = 1

    @property
    def workers_help(self) -> bool:
        """Whether loading is worth a process of its own: where pictures are decoded."""
        return self.has_images

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def texts(self, index: int) -> tuple[str, str]:
        """Caption and short caption as they lie in the data, "" where there is none.

        Raises:
            BadSample: they cannot be read.
        """

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """The RGB picture; asked only where `has_images`.

        Raises:
            BadSample: it is missing or broken.
        """

    def label(self, index: int) -> str:
        """What a message calls the sample: here its number from 1."""
        return f"{self.name}, sample {index + 1}"

    def __getitem__(self, index: int) -> Sample:
        """The sample; without a short caption in the data that is the caption's first sentence.

        Raises:
            IndexError: not 0 <= index < len(self).
            BadSample: it cannot be used.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} samples: there is no index {index}")
        caption, short_caption = (text.strip() for text in self.texts(index))
        if not caption:
            raise BadSample(f"{self.label(index)}: the caption is empty.")
        image = self.image(index) if self.has_images else None
        return Sample(caption, short_caption or split_sentences(caption)[0], image)
