"""Ranks, rises and intervals: pure functions of features, in float32, a chunk of the score matrix at a time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelError

__all__ = ["bootstrap_interval", "match_ranks", "monotonicity", "recall_at", "retrieval_ranks"]

CHUNK = 256  # queries at a time: 256 x 159,000 captions of Flickr30k are 160 MB
# Scores of unit vectors that are closer than this are a tie: equal vectors differ by as much in a float32 product,
# depending on where in the matrix they stand.
ROUNDING = 1e-6
NUM_RESAMPLES = 2000
DRAWS_AT_ONCE = 4_000_000  # of the bootstrap: 32 MB


def match_ranks(
    queries: Tensor, query_labels: Tensor, gallery: Tensor, gallery_labels: Tensor, *, chunk: int = CHUNK
) -> Tensor:
    """How many wrong gallery entries stand before the best right one, for each query: (Q,), 0 is a hit at 1.

    Ties count against: a wrong entry with the same score stands before the right one.

    Args:
        queries, gallery: unit features (Q, P) and (G, P), on one device.
        query_labels, gallery_labels: integers (Q,) and (G,); a gallery entry is right where the labels are equal.
        chunk: queries scored at once.

    Raises:
        ModelError: shapes that do not fit, NaN or infinite features, or a query without a right entry.
    """
    _check(queries, query_labels, gallery, gallery_labels)
    queries, gallery = queries.float(), gallery.float()
    ranks = []
    with torch.autocast(queries.device.type, enabled=False):
        for part, labels in zip(queries.split(chunk), query_labels.split(chunk), strict=True):
            scores = part @ gallery.T
            right = labels[:, None] == gallery_labels
            if not right.any(dim=1).all():
                raise ModelError("A query has no right entry in the gallery, so its rank does not exist.")
            best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
            ranks.append(((scores >= best - ROUNDING) & ~right).sum(dim=1))
    return torch.cat(ranks)


def retrieval_ranks(
    image_features: Tensor, text_features: Tensor, image_of_text: Tensor, *, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """Ranks of image-to-text (N,) and of text-to-image (M,) retrieval, as `match_ranks` counts them.

    Image-to-text asks for the best of the image's captions, text-to-image for each caption's image.

    Args:
        image_features, text_features: unit features (N, P) and (M, P).
        image_of_text: the image of each caption (M,), 0 to N - 1; an image may have any number of captions, not none.

    Raises:
        ModelError: as `match_ranks`.
    """
    images = torch.arange(len(image_features), device=image_features.device)
    to_text = match_ranks(image_features, images, text_features, image_of_text, chunk=chunk)
    to_image = match_ranks(text_features, image_of_text, image_features, images, chunk=chunk)
    return to_text, to_image


def recall_at(
    image_features: Tensor,
    text_features: Tensor,
    image_of_text: Tensor,
    ks: Sequence[int] = (1, 5, 10),
    *,
    chunk: int = CHUNK,
) -> dict[str, float]:
    """Recall at each k in both directions, `i2t_R@1`, `t2i_R@1` and so on; arguments and errors as `retrieval_ranks`.

    Image-to-text is a hit where any of the image's captions is among the first k; text-to-image is the mean over all
    captions.
    """
    to_text, to_image = retrieval_ranks(image_features, text_features, image_of_text, chunk=chunk)
    ranks = {"i2t": to_text, "t2i": to_image}
    return {f"{way}_R@{k}": (found < k).double().mean().item() for way, found in ranks.items() for k in ks}


def monotonicity(image_features: Tensor, prefix_features: Tensor) -> Tensor:
    """Whether the score with the true image rises as more of its text is read: bool (S, K - 1), a column a step.

    HiMo@K (HiMo-CLIP, arXiv 2511.06653) is the share of rows that rise in every column. An equal score is no rise, so
    an encoder that does not read the added text fails.

    Args:
        image_features: unit features (S, P).
        prefix_features: unit features (S, K, P) of K prefixes of each text, from the shortest to the whole.

    Raises:
        ModelError: shapes that do not fit, NaN or infinite features.
    """
    if prefix_features.ndim != 3 or prefix_features[:, 0].shape != image_features.shape:
        raise ModelError(
            f"Expected image features (S, P) and prefix features (S, K, P), got {tuple(image_features.shape)} and "
            f"{tuple(prefix_features.shape)}."
        )
    _check_finite(image_features, prefix_features)
    scores = (prefix_features.float() * image_features.float()[:, None]).sum(dim=-1)
    return scores.diff(dim=1) > ROUNDING


def bootstrap_interval(groups: Any, values: Any) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of `values`; whole groups are drawn, with replacement, from a fixed seed.

    Args:
        groups: what each value belongs to: values of one picture are not independent.
        values: numbers or booleans, as many.
    """
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(group, weights=np.asarray(values, dtype=float)), np.bincount(group)
    rng, rows = np.random.default_rng(0), max(1, DRAWS_AT_ONCE // len(counts))
    means = []
    for start in range(0, NUM_RESAMPLES, rows):
        drawn = rng.integers(len(counts), size=(min(rows, NUM_RESAMPLES - start), len(counts)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def _check(queries: Tensor, query_labels: Tensor, gallery: Tensor, gallery_labels: Tensor) -> None:
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise ModelError(
            f"Features to compare are (N, P) and (M, P), got {tuple(queries.shape)} and {tuple(gallery.shape)}."
        )
    if query_labels.shape != queries.shape[:1] or gallery_labels.shape != gallery.shape[:1]:
        raise ModelError(
            f"{len(queries)} queries and {len(gallery)} gallery entries need as many labels, got "
            f"{tuple(query_labels.shape)} and {tuple(gallery_labels.shape)}."
        )
    if not len(queries):
        raise ModelError("There is nothing to rank: no queries. Were all samples unreadable?")
    _check_finite(queries, gallery)


def _check_finite(*features: Tensor) -> None:
    if not all(bool(part.isfinite().all()) for part in features):
        raise ModelError("The features hold NaN or infinite values; no rank can be trusted. Check the model's weights.")
