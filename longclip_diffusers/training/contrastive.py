"""Long-CLIP's two losses and their gradient: long captions against pictures, short ones against their main components.

One encoding of the pictures serves both losses. The batch that is compared is all processes' together, whatever fits
into memory at once.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPModel

from ..text_encoder import num_positions
from .distributed import average, gather, rank
from .gradcache import encode_chunks, encode_sorted
from .losses import contrastive_loss, saturated_share
from .pcm import is_identity, reconstruct
from .recipe import Recipe

__all__ = ["ContrastiveBatch", "ContrastiveLosses", "autocast", "contrastive_backward", "text_chunk"]

# A compiled tower is compiled anew for each length it sees.
COMPILED_MULTIPLE = 16
# Sorting saves most in small chunks, but each must keep the device busy: so many tokens do for a CPU, for a GPU more.
SMALLEST_CHUNK_CPU, SMALLEST_CHUNK = 2048, 8192
CHUNKS_A_BATCH = 16


@dataclass(frozen=True)
class ContrastiveBatch:
    """One process's share of a batch; every process has equally many samples.

    Args:
        images: pixels (b, 3, H, W), or image features (b, P) of a frozen tower before normalisation.
        long_ids: b rows of token ids from BOS to EOS, not padded, at most as many as the tower has positions.
        short_ids: the same of the short captions.
    """

    images: Tensor
    long_ids: Sequence[Sequence[int]]
    short_ids: Sequence[Sequence[int]]


@dataclass(frozen=True)
class ContrastiveLosses:
    """The losses before weighting, means over all processes.

    `kept_variance` is what PCM's components hold of the image features' variance, None without PCM; `saturated` is
    the share of rows of the long loss whose cross-entropy is below 1e-3.
    """

    loss_long: float
    loss_short: float
    kept_variance: float | None
    saturated: float


def contrastive_backward(
    clip: CLIPModel, batch: ContrastiveBatch, recipe: Recipe, *, micro_batch: int, weight: float = 1.0
) -> ContrastiveLosses:
    """Add the gradient of `weight` x (long loss + `recipe.short_weight` x short loss) to the parameters' `.grad`.

    The loss is the mean over the rows of all processes; `average_gradients` completes its gradient. Parameters that
    need no gradient are left alone, and a tower of such is encoded once.

    Args:
        clip: both towers; with image features given, its vision tower is not used.
        batch: this process's share.
        recipe: reads components, pca, short_weight, label_smoothing, margin, precision and compile.
        micro_batch: samples encoded at once. Where it is less than the local batch, everything is encoded a second
            time for the gradient; it changes memory and time, not the result.

    Warns:
        UserWarning: PCM changes nothing, because the batch it sees has no more rows than components and one.
    """
    replay = micro_batch < len(batch.long_ids)
    images = _unit(_encode_images(clip, batch.images, recipe, micro_batch, replay=replay))
    long_texts = _unit(_encode_texts(clip, batch.long_ids, recipe, micro_batch, replay=replay))
    short_texts = _unit(_encode_texts(clip, batch.short_ids, recipe, micro_batch, replay=replay))
    all_images, all_long, all_short = gather(images), gather(long_texts), gather(short_texts)
    first = rank() * len(images)
    coarse, all_coarse, kept = _coarse(images, all_images, first, recipe)
    scale = clip.logit_scale

    def loss(pictures: Tensor, all_pictures: Tensor, texts: Tensor, all_texts: Tensor) -> Tensor:
        return contrastive_loss(
            pictures,
            texts,
            scale,
            all_images=all_pictures,
            all_texts=all_texts,
            first=first,
            label_smoothing=recipe.label_smoothing,
            margin=recipe.margin,
        )

    loss_long = loss(images, all_images, long_texts, all_long)
    loss_short = loss(coarse, all_coarse, short_texts, all_short)
    saturated = saturated_share(images, long_texts, scale, all_images=all_images, all_texts=all_long, first=first)
    (weight * (loss_long + recipe.short_weight * loss_short)).backward()
    told = average([value.item() for value in (loss_long, loss_short, saturated, kept)])
    return ContrastiveLosses(told[0], told[1], told[3] if recipe.components else None, told[2])


def text_chunk(lengths: Sequence[int], micro_batch: int, device: torch.device) -> int:
    """How many captions of these lengths are encoded at once: few, so that sorting pays, and at most `micro_batch`."""
    if min(lengths) == max(lengths):
        return micro_batch
    tokens = SMALLEST_CHUNK_CPU if device.type == "cpu" else SMALLEST_CHUNK
    enough = max(1, tokens * len(lengths) // sum(lengths), len(lengths) // CHUNKS_A_BATCH)
    return min(micro_batch, 1 << (enough - 1).bit_length())  # a power of two, or a compiled tower would see any number


def _coarse(images: Tensor, all_images: Tensor, first: int, recipe: Recipe) -> tuple[Tensor, Tensor, Tensor]:
    """What short captions are compared with: local rows (b, P), all rows (B, P), and the variance kept."""
    if not recipe.components:
        return images, all_images, images.new_ones(())
    source = all_images if recipe.pca == "global" else images
    if is_identity(len(source), source.shape[1], recipe.components):
        where = "the batch" if recipe.pca == "global" else "one process's share of the batch"
        warnings.warn(
            f"PCM does nothing here: {recipe.components} components hold all that {where}, {len(source)} features of "
            f"width {source.shape[1]}, can say. Take a larger batch_size or fewer components.",
            UserWarning,
            stacklevel=1,
        )
    coarse, kept = reconstruct(source, recipe.components, backward="svd" if recipe.pca == "svd" else "projector")
    if recipe.pca == "global":
        return coarse[first : first + len(images)], coarse, kept
    return coarse, gather(coarse), kept


def _encode_images(clip: CLIPModel, images: Tensor, recipe: Recipe, micro_batch: int, *, replay: bool) -> Tensor:
    if images.ndim == 2:
        return images.detach().to(clip.device)

    def encode(pixels: Tensor) -> Tensor:
        with autocast(recipe, clip.device):
            return clip.visual_projection(clip.vision_model(pixel_values=pixels.to(clip.device)).pooler_output)

    return encode_chunks(encode, images.split(micro_batch), replay=replay)


def _encode_texts(
    clip: CLIPModel, rows: Sequence[Sequence[int]], recipe: Recipe, micro_batch: int, *, replay: bool
) -> Tensor:
    def encode(ids: Tensor) -> Tensor:
        # No attention mask: with one, the attention would leave its fast causal path for nothing.
        with autocast(recipe, clip.device):
            return clip.text_projection(clip.text_model(input_ids=ids.to(clip.device)).pooler_output)

    return encode_sorted(
        encode,
        rows,
        size=text_chunk([len(row) for row in rows], micro_batch, clip.device),
        replay=replay,
        multiple=COMPILED_MULTIPLE if recipe.compile else 1,
        longest=num_positions(clip),
    )


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """The precision that a recipe's towers compute in."""
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")


def _unit(features: Tensor) -> Tensor:
    """Rows of length one, in fp32 (fp64 for fp64)."""
    return normalize(features if features.dtype == torch.float64 else features.float(), dim=-1)
