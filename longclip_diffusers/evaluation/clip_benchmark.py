"""Our models in LAION's clip_benchmark: the triple `(model, transform, tokenizer)` that its functions take."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import CLIPModel

from ..text_encoder import num_positions
from .features import open_encoder, token_ids

__all__ = ["clip_benchmark_model"]


class BenchmarkModel(nn.Module):
    """A CLIP under the names that clip_benchmark calls; features are not normalised, as open_clip's are not."""

    def __init__(self, clip: CLIPModel):
        super().__init__()
        self.clip = clip

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Features (B, P) of pixels (B, 3, H, W) as `transform` makes them."""
        return self.clip.get_image_features(pixels).pooler_output

    def encode_text(self, ids: Tensor) -> Tensor:
        """Features (B, P) of token ids (B, L) as `tokenizer` makes them."""
        return self.clip.get_text_features(ids).pooler_output


def clip_benchmark_model(
    source: str | Path, device: str = "cpu", **hub: Any
) -> tuple[nn.Module, Callable[[Image.Image], Tensor], Callable[[str | Sequence[str]], Tensor]]:
    """`(model, transform, tokenizer)` of any CLIP or Long-CLIP, as clip_benchmark's metrics and datasets take it.

    - `model.encode_image(pixels)` and `model.encode_text(ids)` give features (B, P) on `device`, in float32;
    - `transform(picture)` gives pixels (3, H, W);
    - `tokenizer(texts)` gives ids (B, L), L being the encoder's length; a text that is longer is cut, with a warning.

    Args:
        source: what `load_clip` takes; both towers are needed.
        **hub: as `load_clip`.

    Raises:
        CheckpointError: as `load_clip`.
    """
    encoder = open_encoder(source, device=device, **hub)
    clip = encoder.clip

    def transform(picture: Image.Image) -> Tensor:
        return encoder.processor(images=picture, return_tensors="pt").pixel_values[0]

    def tokenize(texts: str | Sequence[str]) -> Tensor:
        ids, truncated = token_ids(clip, encoder.tokenizer, [texts] if isinstance(texts, str) else texts)
        if any(truncated):
            message = f"{sum(truncated)} of {len(ids)} texts are longer than {num_positions(clip)} tokens and were cut."
            warnings.warn(message, stacklevel=2)
        end = ids[0][-1]
        whole = torch.full((num_positions(clip),), end)  # so that every batch has the encoder's length
        rows = [torch.tensor(row) for row in ids]
        return pad_sequence([whole, *rows], batch_first=True, padding_value=end)[1:]

    return BenchmarkModel(clip).eval(), transform, tokenize
