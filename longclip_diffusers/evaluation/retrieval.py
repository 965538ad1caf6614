"""Which caption belongs to which picture: recall at k in both directions, for long and for short captions."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from ..checkpoints.processor import CLIPImageProcessorPil
from ..errors import LongClipError
from ..sentences import split_sentences
from .features import Encoder, encode_for_all, encode_images, encode_texts
from .metrics import bootstrap_interval, monotonicity, recall_at, retrieval_ranks
from .report import Row

__all__ = [
    "Pair",
    "Retrieval",
    "evaluate_retrieval",
    "monotonicity_rows",
    "readable",
    "recall_rows",
    "retrieval_scores",
    "sentence_prefixes",
]

KS = (1, 5, 10)
NUM_PREFIXES = (2, 3)  # HiMo@2 and HiMo@3


class Pair(Protocol):
    """What a sample must offer: two texts and a picture."""

    @property
    def caption(self) -> str: ...  # noqa: D102
    @property
    def short_caption(self) -> str: ...  # noqa: D102
    @property
    def image(self) -> Image.Image | None: ...  # noqa: D102


class Data(Protocol):
    """What `readable` reads: samples by their index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Pair: ...


@dataclass(frozen=True)
class Retrieval:
    """Rows of every encoder; the share of texts that each had to cut, by encoder and kind of caption; what was read."""

    rows: list[Row]
    truncated: dict[str, dict[str, float]]
    num_images: int
    num_texts: int


@dataclass
class _Read:
    """Texts and picture features as they come in; equal pictures are one picture with several captions."""

    captions: list[str] = field(default_factory=list)
    short_captions: list[str] = field(default_factory=list)
    image_of_text: list[int] = field(default_factory=list)
    images: dict[bytes, int] = field(default_factory=dict)


def readable(data: Data, num_samples: int, bad: list[LongClipError]) -> Iterator[Pair]:
    """The first `num_samples` samples; one that cannot be read is left out, and its error put into `bad`."""
    for index in range(min(num_samples, len(data))):
        try:
            sample = data[index]
        except LongClipError as error:
            bad.append(error)
        else:
            yield sample


def evaluate_retrieval(
    encoders: Sequence[Encoder], samples: Iterable[Pair], *, name: str, batch_size: int = 64
) -> Retrieval:
    """Recall at 1, 5 and 10 of long and of short captions, and HiMo@2 and 3 of the long ones, for every encoder.

    Samples are read once, a batch of pictures in memory at a time. Equal pictures count as one picture with several
    captions. Columns are `NAME/long/i2t_R@1(n=500)`, with the number of pictures; `NAME/text/...` where long and short
    captions are the same texts. An R@k that no encoder could miss, k being the whole gallery, has no row.

    Args:
        encoders: with names of their own; the first is the one in question, a base encoder may stand beside it.
        samples: captions with pictures.
        name: of the data, as the columns call it.
        batch_size: pictures, or texts, encoded at once.

    Raises:
        LongClipError: fewer than two pictures, or a sample without one.
        ModelError: features that are NaN or infinite.
    """
    read = _Read()
    features = encode_for_all(encoders, _new_pictures(samples, read), batch_size)
    if len(read.images) < 2:
        raise LongClipError(
            f"{name} gave {len(read.images)} usable pictures; retrieval chooses between at least 2. See the reported "
            "unreadable samples, or give more data."
        )
    texts = {"long": read.captions, "short": read.short_captions}
    if read.captions == read.short_captions:
        texts = {"text": read.captions}
    rows, truncated = [], {}
    for encoder in encoders:
        found, truncated[encoder.name] = _encoder_rows(
            encoder, features[encoder.name], texts, torch.tensor(read.image_of_text), name, batch_size
        )
        rows += found
    return Retrieval(rows, truncated, len(read.images), len(read.captions))


def recall_rows(
    encoder: str, column: str, image_features: Tensor, text_features: Tensor, image_of_text: Tensor
) -> list[Row]:
    """A row for each direction and k, with intervals resampled over pictures; arguments as `retrieval_ranks`.

    `column` opens the rows' columns: data set and kind of caption.
    """
    num_images, num_texts = len(image_features), len(text_features)
    to_text, to_image = retrieval_ranks(image_features, text_features, image_of_text)
    ways = {
        "i2t": (to_text, torch.arange(num_images), num_texts),
        "t2i": (to_image, image_of_text.cpu(), num_images),
    }
    rows = []
    for way, (ranks, images, gallery) in ways.items():
        for k in (k for k in KS if k < gallery):
            hits = (ranks < k).cpu().numpy()
            interval = bootstrap_interval(images.numpy(), hits)
            rows.append(Row(encoder, f"{column}/{way}_R@{k}(n={num_images})", float(hits.mean()), *interval, len(hits)))
    return rows


def monotonicity_rows(
    encoder: Encoder,
    column: str,
    image_features: Tensor,
    captions: Sequence[str],
    whole: Tensor,
    batch_size: int = 64,
    *,
    image_of_text: Tensor | None = None,
) -> list[Row]:
    """HiMo@2 and HiMo@3: the share of captions whose score with their picture rises with every third or half read.

    Args:
        column: opens the rows' columns.
        image_features: of each caption's own picture (M, P).
        captions: M texts; those with fewer sentences than prefixes are left out.
        whole: features (M, P) of the whole captions.
        image_of_text: number of each caption's picture (M,), where several may be of one.
    """
    groups = torch.arange(len(captions)) if image_of_text is None else image_of_text
    rows = []
    for num_prefixes in NUM_PREFIXES:
        prefixes = {index: sentence_prefixes(caption, num_prefixes) for index, caption in enumerate(captions)}
        kept = [index for index, parts in prefixes.items() if len(parts) == num_prefixes]
        if kept:
            parts = [part for index in kept for part in prefixes[index][:-1]]
            shorter = encode_texts(encoder.clip, encoder.tokenizer, parts, batch_size).features
            read = torch.cat([shorter.unflatten(0, (len(kept), -1)), whole[kept][:, None]], dim=1)
            rises = monotonicity(image_features[kept], read).all(dim=1).numpy()
            interval = bootstrap_interval(groups[kept].numpy(), rises)
            rows.append(Row(encoder.name, f"{column}/HiMo@{num_prefixes}", float(rises.mean()), *interval, len(kept)))
    return rows


def retrieval_scores(
    clip: CLIPModel,
    tokenizer: CLIPTokenizer,
    processor: CLIPImageProcessorPil,
    samples: Sequence[Pair],
    *,
    ks: Sequence[int],
    num_prefixes: int = 3,
) -> dict[str, float]:
    """`long_i2t_R@1` and so on of long and short captions, and HiMo@`num_prefixes` where captions have the sentences.

    Bare means for a run to follow; every sample's picture counts as another one.
    """
    images = encode_images(clip, (each.image for each in samples if each.image is not None), processor)
    own = torch.arange(len(images))
    captions = {"long": [each.caption for each in samples], "short": [each.short_caption for each in samples]}
    values: dict[str, float] = {}
    for kind, texts in captions.items():
        features = encode_texts(clip, tokenizer, texts).features
        values |= {f"{kind}_{name}": value for name, value in recall_at(images, features, own, ks).items()}
    prefixes = {index: sentence_prefixes(text, num_prefixes) for index, text in enumerate(captions["long"])}
    told = [index for index, parts in prefixes.items() if parts]
    if told:
        parts = [part for index in told for part in prefixes[index]]
        read = encode_texts(clip, tokenizer, parts).features.unflatten(0, (len(told), num_prefixes))
        values[f"HiMo@{num_prefixes}"] = monotonicity(images[told], read).all(dim=1).double().mean().item()
    return values


def sentence_prefixes(text: str, num_prefixes: int) -> list[str]:
    """`num_prefixes` openings of a text, each an equal share of sentences longer, the last all of it; or [] where it
    has fewer sentences."""
    sentences = split_sentences(text)
    if len(sentences) < num_prefixes:
        return []
    ends = [len(sentences) * part // num_prefixes for part in range(1, num_prefixes + 1)]
    return [" ".join(sentences[:end]) for end in ends]


def _encoder_rows(
    encoder: Encoder,
    image_features: Tensor,
    texts: Mapping[str, list[str]],
    image_of_text: Tensor,
    name: str,
    batch_size: int,
) -> tuple[list[Row], dict[str, float]]:
    rows, truncated = [], {}
    for kind, captions in texts.items():
        read = encode_texts(encoder.clip, encoder.tokenizer, captions, batch_size)
        column = f"{name}/{kind}"
        rows += recall_rows(encoder.name, column, image_features, read.features, image_of_text)
        if kind != "short":
            own = image_features[image_of_text]
            rows += monotonicity_rows(
                encoder, column, own, captions, read.features, batch_size, image_of_text=image_of_text
            )
        truncated[kind] = read.truncated.double().mean().item()
    return rows, truncated


def _new_pictures(samples: Iterable[Pair], read: _Read) -> Iterator[Image.Image]:
    """Pictures not seen before; captions go into `read`."""
    for sample in samples:
        if sample.image is None:
            raise LongClipError(f"The sample with the caption {sample.caption[:60]!r} has no picture to be found.")
        key, index = _digest(sample.image), len(read.images)
        read.image_of_text.append(read.images.setdefault(key, index))
        read.captions.append(sample.caption)
        read.short_captions.append(sample.short_caption)
        if len(read.images) > index:
            yield sample.image


def _digest(image: Image.Image) -> bytes:
    return hashlib.blake2b(f"{image.mode}{image.size}".encode() + image.tobytes(), digest_size=16).digest()
