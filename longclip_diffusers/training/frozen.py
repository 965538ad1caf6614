"""Picture features of a frozen vision tower: computed once before the run, kept in its folder, looked up ever after."""

from collections.abc import Iterator, Sequence
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

    Exact, since a frozen tower without augmentation sees a picture the same way each time. Pictures that cannot be
    read have none.
    """

    def __init__(self, indices: Tensor, features: Tensor):
        self.features = features
        self._row = {index: row for row, index in enumerate(indices.tolist())}

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
        if path.is_file() and (stored := _kept(path, wanted, clip, processor, data)):
            return cls(stored["indices"], stored["features"])
        indices, features = _features(clip, processor, data, wanted, shown=rank() == 0)
        if not len(indices):
            raise LongClipError(f"{data.name}: none of {len(wanted)} pictures can be read.")
        stored = {"wanted": torch.tensor(wanted), "indices": indices, "features": features}
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        save_file(stored, unfinished)
        unfinished.replace(path)
        return cls(indices, features)

    def __getitem__(self, indices: list[int]) -> Tensor:
        """Features of these samples (n, P)."""
        return self.features[[self._row[index] for index in indices]]

    def view(self, data: TextImageData) -> TextImageData:
        """The same data without opening a picture; a sample that has no features is a bad one."""
        return _WithFeatures(data, self._row)


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
    chosen = stored["indices"][:: max(1, len(stored["indices"]) // NUM_CHECKED)].tolist()
    indices, features = _features(clip, processor, data, chosen)
    if indices.tolist() != chosen:  # a picture is gone
        return None
    row = {index: number for number, index in enumerate(stored["indices"].tolist())}
    before = stored["features"][[row[index] for index in chosen]]
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
            with torch.no_grad():
                pooled = clip.vision_model(pixel_values=pixels.to(clip.device)).pooler_output
                features.append(clip.visual_projection(pooled).float().cpu())
            indices += found
            bar.update(len(found))
    return torch.tensor(indices, dtype=torch.int64), torch.cat(features)


class _WithFeatures(TextImageData):
    def __init__(self, data: TextImageData, known: dict[int, int]):
        self.data, self.known, self.name, self.has_images = data, known, data.name, False
        self.group_size = data.group_size

    def __len__(self) -> int:
        return len(self.data)

    def texts(self, index: int) -> tuple[str, str]:
        if index not in self.known:
            raise BadSample(f"{self.label(index)}: its picture could not be read, or was not among those of this run.")
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
