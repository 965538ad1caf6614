"""Parts of data without a copy: the held-out rows, the rest, and captions without their pictures."""

from PIL import Image

from .sample import TextImageData
from .storybook import StorybookData

__all__ = ["split", "without_images"]

HELD_OUT_SHARE = 10  # at most one sample in so many is held out


class Rows(TextImageData):
    """The rows `start` to `stop - 1` of other data."""

    def __init__(self, data: TextImageData, start: int, stop: int):
        self.data, self.start, self.stop = data, start, stop
        self.name, self.has_images = data.name, data.has_images

    @property
    def workers_help(self) -> bool:
        """As in the data itself."""
        return self.data.workers_help

    def __len__(self) -> int:
        return self.stop - self.start

    def texts(self, index: int) -> tuple[str, str]:
        """Of the row."""
        return self.data.texts(self.start + index)

    def image(self, index: int) -> Image.Image:
        """Of the row."""
        return self.data.image(self.start + index)

    def label(self, index: int) -> str:
        """What the data itself calls the row."""
        return self.data.label(self.start + index)


class Captions(Rows):
    """All rows of other data, whose pictures are never opened."""

    def __init__(self, data: TextImageData):
        super().__init__(data, 0, len(data))
        self.has_images, self.group_size = False, data.group_size

    @property
    def workers_help(self) -> bool:
        """Texts are read faster than they are sent between processes."""
        return False


def split(data: TextImageData, num_validation: int) -> tuple[TextImageData, TextImageData]:
    """Views of (training, validation): the first rows are held out, as Long-CLIP's own code does with ShareGPT4V.

    Args:
        num_validation: how many; never more than a tenth of the data, so it is none below ten samples. The storybook
            draws its held-out scenes from seeds of their own and loses no row.
    """
    held_out = min(num_validation, len(data) // HELD_OUT_SHARE)
    if isinstance(data, StorybookData):
        return data, data.held_out(held_out)
    return Rows(data, held_out, len(data)), Rows(data, 0, held_out)


def without_images(data: TextImageData) -> TextImageData:
    """The same rows as texts alone: no picture is opened, so none can be bad. For text-only objectives."""
    return Captions(data)
