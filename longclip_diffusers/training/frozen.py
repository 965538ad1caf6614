"""Picture features of a frozen vision tower: computed once before the run, kept in its folder, looked up ever after."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import CLIPModel

from ..errors import LongClipError
from .data import BadSample, BatchOrder, TextImageData
from .distributed import rank

__all__ = ["FrozenFeatures"]

BATCH = 64
# Kept features are those of today's pictures and weights where these many of them are, to this relative error.
NUM_CHECKED, TOLERANCE = 32, 1e-2


class FrozenFeatures:
    """Features before normalisation, (P,) each, by the index of their sample.

    Exact, since a frozen tower without augmentation sees a picture the same way each time. A sample that stands in for
    one whose picture cannot be read is looked at when it is asked for.

    Args:
        encode: the features (P,) of a sample that `indices` lacks; BadSample where its picture cannot be read.
    """

    def __init__(self, indices: Tensor, features: Tensor, encode: Callable[[int], Tensor]):
        self._features, self._row = features, {index: row for row, index in enumerate(indices.tolist())}
        self._stand_ins: dict[int, Tensor] = {}
        self._encode = encode

    @classmethod
    def compute(
        cls, clip: CLIPModel, processor: Any, data: TextImageData, order: BatchOrder, steps: range, folder: Path
    ) -> "FrozenFeatures":
        """Features of all samples that this process meets in these steps; read from `folder` where they lie there.

        They are computed anew where the data or the tower changed meanwhile: some of what is kept is looked at again.

        Raises:
            LongClipError: none of the pictures can be read.
        """
        path = folder / f"image_features-{rank()}-of-{order.num_processes}.safetensors"
        wanted = _wanted(order, steps)

        def encode(index: int) -> Tensor:
            pixels = processor(images=data.image(index), return_tensors="pt").pixel_values
            return _encoded(clip, pixels)[0]

        if path.is_file() and (stored := _kept(path, wanted, clip, processor, data)):
            return cls(stored["indices"], stored["features"], encode)
        indices, features = _features(clip, processor, data, wanted, shown=rank() == 0)
        if not len(indices):
            raise LongClipError(f"{data.name}: none of {len(wanted)} pictures can be read.")
        stored = {"wanted": torch.tensor(wanted), "indices": indices, "features": features}
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        save_file(stored, unfinished)
        unfinished.replace(path)
        return cls(indices, features, encode)

    def __getitem__(self, indices: list[int]) -> Tensor:
        """Features of these samples (n, P).

        Raises:
            BadSample: one's picture cannot be read.
        """
        return torch.stack([self._of(index) for index in indices])

    def _of(self, index: int) -> Tensor:
        if index in self._row:
            return self._features[self._row[index]]
        if index not in self._stand_ins:
            self._stand_ins[index] = self._encode(index)
        return self._stand_ins[index]

    def view(self, data: TextImageData) -> TextImageData:
        """The same data without pictures; a sample that can have no features is a bad one."""
        return _WithFeatures(data, self)


def _wanted(order: BatchOrder, steps: range) -> list[int]:
    if steps[-1] >= order.steps_per_epoch:  # later epochs shuffle every sample into every process
        return list(range(order.num_samples))
    return sorted({index for step in steps for index in order.indices(step)})


def _kept(
    path: Path, wanted: Sequence[int], clip: CLIPModel, processor: Any, data: TextImageData
) -> dict[str, Tensor] | None:
    """What the file holds, if it is of the samples wanted and still true of some of them, evenly spread."""
    try:
        stored = load_file(path)
    except SafetensorError:
        return None
    if "wanted" not in stored or stored["wanted"].tolist() != wanted:
        return None
    spread = slice(None, None, max(1, len(stored["indices"]) // NUM_CHECKED))
    chosen, before = stored["indices"][spread], stored["features"][spread]
    indices, features = _features(clip, processor, data, chosen.tolist())
    if not torch.equal(indices, chosen):  # a picture is gone
        return None
    same = ((features - before).norm(dim=-1) <= TOLERANCE * before.norm(dim=-1)).all()
    return stored if same else None


def _features(
    clip: CLIPModel, processor: Any, data: TextImageData, wanted: Sequence[int], *, shown: bool = False
) -> tuple[Tensor, Tensor]:
    """Indices (n,) of the readable pictures among those wanted, and their features (n, P)."""
    indices: list[int] = []
    features = [torch.empty(0, clip.visual_projection.out_features)]
    with tqdm(total=len(wanted), desc="picture features", unit="picture", disable=not shown) as bar:
        for found, pixels in _pixel_batches(data, wanted, processor):
            features.append(_encoded(clip, pixels))
            indices += found
            bar.update(len(found))
    return torch.tensor(indices, dtype=torch.int64), torch.cat(features)


@torch.no_grad()
def _encoded(clip: CLIPModel, pixels: Tensor) -> Tensor:
    pooled = clip.vision_model(pixel_values=pixels.to(clip.device)).pooler_output
    return clip.visual_projection(pooled).float().cpu()


class _WithFeatures(TextImageData):
    def __init__(self, data: TextImageData, features: FrozenFeatures):
        self.data, self.features, self.name, self.has_images = data, features, data.name, False
        self.group_size = data.group_size

    def __len__(self) -> int:
        return len(self.data)

    def texts(self, index: int) -> tuple[str, str]:
        self.features[[index]]  # its picture can be read, or it is a bad sample
        return self.data.texts(index)

    def image(self, index: int) -> Image.Image:
        raise BadSample(f"{self.label(index)}: pictures are not opened where their features are kept.")

    def label(self, index: int) -> str:
        return self.data.label(index)


class _Pictures(Dataset):
    def __init__(self, data: TextImageData, wanted: Sequence[int], processor: Any):
        self.data, self.wanted, self.processor = data, wanted, processor

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, place: int) -> tuple[int, np.ndarray | None]:
        index = self.wanted[place]
        try:
            return index, self.processor(images=self.data.image(index), return_tensors="np").pixel_values[0]
        except BadSample:
            return index, None


def _pixel_batches(data: TextImageData, wanted: Sequence[int], processor: Any) -> Iterator[tuple[list[int], Tensor]]:
    """Indices and pixels of the readable pictures, a batch at a time."""
    workers = 2 if data.workers_help else 0
    loader: Any = DataLoader(_Pictures(data, wanted, processor), batch_size=BATCH, num_workers=workers, collate_fn=list)
    for batch in loader:
        good = [(index, pixels) for index, pixels in batch if pixels is not None]
        if good:
            yield [index for index, _ in good], torch.from_numpy(np.stack([pixels for _, pixels in good]))
