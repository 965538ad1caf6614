"""Pictures and texts -> unit features of a CLIP, in float32, and what the encoder could not read."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import CLIPModel, CLIPTokenizer

from ..checkpoints import load_clip
from ..checkpoints.processor import CLIPImageProcessorPil, load_image_processor
from ..errors import ModelError
from ..text_encoder import num_positions
from ..tokenizer import load_tokenizer, normalize_text

__all__ = [
    "Encoder",
    "TextFeatures",
    "encode_for_all",
    "encode_images",
    "encode_texts",
    "evaluating",
    "open_encoder",
    "token_ids",
]


@dataclass(frozen=True)
class Encoder:
    """Both towers with what feeds them, and the name that its rows carry."""

    name: str
    clip: CLIPModel
    tokenizer: CLIPTokenizer
    processor: CLIPImageProcessorPil


@dataclass(frozen=True)
class TextFeatures:
    """Unit features (M, P) in float32 on the CPU, and which texts were cut at the encoder's length: bool (M,)."""

    features: Tensor
    truncated: Tensor


def open_encoder(source: str | Path, *, name: str | None = None, device: str = "cpu", **hub: Any) -> Encoder:
    """The CLIP at `source` in float32 with CLIP's tokenizer at its length and its own image processor.

    Raises:
        CheckpointError: as `load_clip`; a source with a text tower only cannot be measured against pictures.
    """
    clip = load_clip(source, dtype=torch.float32, **hub)
    processor = load_image_processor(source, clip, **hub)
    tokenizer = load_tokenizer(max_length=num_positions(clip))
    return Encoder(name or str(source), clip.to(device), tokenizer, processor)  # type: ignore[arg-type]


def encode_images(
    clip: CLIPModel, images: Iterable[Image.Image], processor: CLIPImageProcessorPil, batch_size: int = 64
) -> Tensor:
    """Unit features (N, P) of pictures, in float32 on the CPU; `images` may be a generator, read a batch at a time.

    Raises:
        ModelError: no pictures.
    """
    pictures, features = iter(images), []
    with evaluating(clip):
        while batch := list(islice(pictures, batch_size)):
            pixels = processor(images=batch, return_tensors="pt").pixel_values.to(clip.device, clip.dtype)
            features.append(_unit(clip.get_image_features(pixels).pooler_output))
    if not features:
        raise ModelError("There are no pictures to encode.")
    return torch.cat(features)


def encode_for_all(
    encoders: Sequence[Encoder], images: Iterable[Image.Image], batch_size: int = 64
) -> dict[str, Tensor]:
    """`encode_images` of every encoder by its name; `images` is read once, a batch at a time.

    Raises:
        ModelError: no pictures, or two encoders of one name.
    """
    features: dict[str, list[Tensor]] = {encoder.name: [] for encoder in encoders}
    if len(features) < len(encoders):
        raise ModelError(f"Encoders that are compared need names of their own, got {[each.name for each in encoders]}.")
    pictures = iter(images)
    while batch := list(islice(pictures, batch_size)):
        for encoder in encoders:
            features[encoder.name].append(encode_images(encoder.clip, batch, encoder.processor, batch_size))
    if not all(features.values()):
        raise ModelError("There are no pictures to encode; were all of them unreadable?")
    return {name: torch.cat(parts) for name, parts in features.items()}


def encode_texts(clip: CLIPModel, tokenizer: CLIPTokenizer, texts: Sequence[str], batch_size: int = 64) -> TextFeatures:
    """Unit features of texts in their order, each read up to the encoder's number of positions.

    Texts of like length share a batch that ends with its longest: the text tower is causal, so what stands after a
    text's end cannot change its pooled feature.

    Raises:
        ModelError: no texts, or a tokenizer with more tokens than the encoder has.
    """
    if not texts:
        raise ModelError("There are no texts to encode.")
    ids, truncated = token_ids(clip, tokenizer, texts)
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    features: list[Tensor] = []
    with evaluating(clip):
        for start in range(0, len(order), batch_size):
            rows = [torch.tensor(ids[index]) for index in order[start : start + batch_size]]
            batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=rows[0][-1].item())
            features.append(_unit(clip.get_text_features(batch.to(clip.device)).pooler_output))
    places = torch.tensor(order).argsort()
    return TextFeatures(torch.cat(features)[places], torch.tensor(truncated))


def token_ids(clip: CLIPModel, tokenizer: CLIPTokenizer, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
    """Ids of each text from BOS to EOS, normalised and cut at the encoder's length, and which texts were cut.

    Raises:
        ModelError: a tokenizer with more tokens than the encoder has.
    """
    limit, vocabulary = num_positions(clip), clip.config.text_config.vocab_size  # type: ignore[union-attr]
    if len(tokenizer) > vocabulary:
        raise ModelError(
            f"The tokenizer has {len(tokenizer)} tokens, the text tower {vocabulary}: they do not belong together."
        )
    cleaned = [normalize_text(text) for text in texts]
    whole = tokenizer(cleaned, truncation=False, verbose=False).input_ids
    cut = [ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]] for ids in whole]
    return cut, [len(ids) > limit for ids in whole]


def _unit(pooled: Tensor) -> Tensor:
    return normalize(pooled.float(), dim=-1).cpu()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without gradients and dropout; a module in training goes back to it."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)
