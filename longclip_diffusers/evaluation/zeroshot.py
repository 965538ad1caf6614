"""Zero-shot classification: the class whose description is nearest to the picture."""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPModel, CLIPTokenizer

from ..errors import LongClipError
from .features import Encoder, encode_for_all, encode_texts
from .metrics import NUM_RESAMPLES, bootstrap_interval, match_ranks
from .report import Row

__all__ = [
    "TEMPLATES",
    "ClassFolders",
    "ZeroShot",
    "class_features",
    "class_folders",
    "classification_rows",
    "evaluate_zeroshot",
    "read_classes",
    "read_templates",
]

# The plain one of CLIP's paper, and the seven that OpenAI found to do nearly as well as its eighty for ImageNet
# (openai/CLIP, Prompt_Engineering_for_ImageNet).
TEMPLATES = (
    "a photo of a {}.",
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
KS = (1, 5)


@dataclass(frozen=True)
class ClassFolders:
    """Pictures by class: `names` holds what each class may be called, `labels` the class of each file."""

    names: tuple[tuple[str, ...], ...]
    files: tuple[Path, ...]
    labels: tuple[int, ...]

    def sample(self, num_samples: int, *, seed: int) -> "ClassFolders":
        """The same classes with at most `num_samples` pictures, drawn evenly from all."""
        kept = sorted(random.Random(seed).sample(range(len(self.files)), min(num_samples, len(self.files))))
        return ClassFolders(
            self.names, tuple(self.files[index] for index in kept), tuple(self.labels[index] for index in kept)
        )

    def readable(
        self, open_image: Callable[[Path], Image.Image], bad: list[LongClipError]
    ) -> Iterator[tuple[Image.Image, int]]:
        """The pictures with their labels; the LongClipError of one that cannot be read is put into `bad`."""
        for file, label in zip(self.files, self.labels, strict=True):
            try:
                picture = open_image(file)
            except LongClipError as error:
                bad.append(error)
            else:
                yield picture, label


@dataclass(frozen=True)
class ZeroShot:
    """Rows of every encoder, and the share of `prompts` that each had to cut."""

    rows: list[Row]
    truncated: dict[str, dict[str, float]]


def class_folders(folder: Path, classes: Mapping[str, Sequence[str]] | None = None) -> ClassFolders:
    """The pictures in `folder`, which has one sub-folder a class (torchvision's ImageFolder), in order of their names.

    Args:
        classes: what each sub-folder's class is called; without it the folder's name with spaces for underscores.

    Raises:
        LongClipError: fewer than two sub-folders, no pictures, or a folder that `classes` does not name.
    """
    folders = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if len(folders) < 2:
        raise LongClipError(
            f"{folder} has {len(folders)} sub-folders. Expected one for each class, at least two, with its pictures."
        )
    if classes is not None and (missing := [path.name for path in folders if path.name not in classes]):
        raise LongClipError(f"The classes file does not name {len(missing)} folders of {folder}, such as {missing[0]}.")
    names = [tuple((classes or {}).get(path.name) or (path.name.replace("_", " "),)) for path in folders]
    pictures = Image.registered_extensions()
    found = [
        (file, label)
        for label, path in enumerate(folders)
        for file in sorted(path.rglob("*"))
        if file.suffix.lower() in pictures
    ]
    if not found:
        raise LongClipError(f"There are no pictures in the sub-folders of {folder}.")
    files, labels = zip(*found, strict=True)
    return ClassFolders(tuple(names), files, labels)


def read_classes(file: Path) -> dict[str, list[str]]:
    """Names by folder, from a JSON object: `{"n01440764": ["tench", "Tinca tinca"], "n01443537": "goldfish"}`.

    Raises:
        LongClipError: unreadable, or not such an object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        given = {folder: [names] if isinstance(names, str) else list(names) for folder, names in content.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise LongClipError(f"{file} is not a readable JSON object of folders and names ({error}).") from error
    for folder, names in given.items():
        if not names or not all(isinstance(name, str) and name.strip() for name in names):
            raise LongClipError(f"{file}: {folder} needs a name, or a list of names, got {names!r}.")
    return given


def read_templates(file: Path) -> tuple[str, ...]:
    """Templates from a text file, one a line, `{}` (or clip_benchmark's `{c}`) where the class's name goes.

    Raises:
        LongClipError: unreadable, empty, or a line without a place for the name.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise LongClipError(f"{file} cannot be read ({error}).") from error
    templates = tuple(line.replace("{c}", "{}") for line in lines if line)
    if not templates:
        raise LongClipError(f"{file} holds no templates: expected one a line, such as {TEMPLATES[0]!r}.")
    if wrong := [template for template in templates if template.count("{}") != 1]:
        raise LongClipError(f"{file}: {wrong[0]!r} has not one {{}} where the class's name goes.")
    return templates


def class_features(
    clip: CLIPModel, tokenizer: CLIPTokenizer, prompts: Sequence[Sequence[str]], batch_size: int = 64
) -> tuple[Tensor, float]:
    """The unit mean of the features of each class's prompts (C, P), and the share of prompts that were cut.

    Args:
        prompts: the texts that describe each class; any number, at least one.
    """
    read = encode_texts(clip, tokenizer, [prompt for texts in prompts for prompt in texts], batch_size)
    parts = read.features.split([len(texts) for texts in prompts])
    means = normalize(torch.stack([part.mean(dim=0) for part in parts]), dim=-1)
    return means, read.truncated.double().mean().item()


def classification_rows(
    encoder: str, column: str, image_features: Tensor, labels: Tensor, classes: Tensor
) -> list[Row]:
    """`acc1`, `acc5` (more than five classes) and `mean_per_class_recall` of pictures (N, P) among classes (C, P).

    A picture counts where its class stands before all others (or all but four); ties count against. The mean per
    class recall, over the classes that have pictures, is resampled inside each class.

    Raises:
        ModelError: as `match_ranks`.
    """
    ranks = match_ranks(image_features, labels, classes, torch.arange(len(classes)))
    rows = []
    for k in (k for k in KS if k < len(classes)):
        hits = (ranks < k).numpy()
        interval = bootstrap_interval(range(len(hits)), hits)
        rows.append(Row(encoder, f"{column}/acc{k}", float(hits.mean()), *interval, len(hits)))
    groups = [(ranks[labels == label] < 1).numpy() for label in labels.unique()]
    means = np.mean([group.mean() for group in groups])
    drawn = np.mean([_resampled_means(group, seed) for seed, group in enumerate(groups)], axis=0)
    low, high = (float(value) for value in np.quantile(drawn, [0.025, 0.975]))
    return [*rows, Row(encoder, f"{column}/mean_per_class_recall", float(means), low, high, len(ranks))]


def evaluate_zeroshot(
    encoders: Sequence[Encoder],
    pictures: Iterable[tuple[Image.Image, int]],
    names: Sequence[Sequence[str]],
    *,
    name: str,
    templates: Sequence[str] = TEMPLATES,
    batch_size: int = 64,
) -> ZeroShot:
    """Accuracies of every encoder; pictures are read once, a batch in memory at a time.

    A class is described by all its names in all templates. Columns are
    `NAME/zeroshot/acc1(classes=10,templates=8,n=500)`, with the number of pictures.

    Args:
        encoders: with names of their own.
        pictures: each with the index of its class.
        names: what each class is called, at least two classes.
        name: of the data, as the columns call it.
        templates: with `{}` where a name goes.

    Raises:
        ModelError: no pictures, NaN or infinite features.
    """
    labels: list[int] = []
    features = encode_for_all(encoders, _noting_labels(pictures, labels), batch_size)
    prompts = [[template.format(each) for each in called for template in templates] for called in names]
    column, rows, truncated = f"{name}/zeroshot", [], {}
    protocol = f"(classes={len(names)},templates={len(templates)},n={len(labels)})"
    for encoder in encoders:
        classes, cut = class_features(encoder.clip, encoder.tokenizer, prompts, batch_size)
        found = classification_rows(encoder.name, column, features[encoder.name], torch.tensor(labels), classes)
        rows += [replace(row, column=row.column + protocol) for row in found]
        truncated[encoder.name] = {"prompts": cut}
    return ZeroShot(rows, truncated)


def _noting_labels(pictures: Iterable[tuple[Image.Image, int]], labels: list[int]) -> Iterator[Image.Image]:
    for picture, label in pictures:
        labels.append(label)
        yield picture


def _resampled_means(hits: np.ndarray, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).binomial(len(hits), hits.mean(), size=NUM_RESAMPLES)
    return drawn / len(hits)
