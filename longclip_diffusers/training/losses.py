"""The contrastive loss of CLIP on unit features, sharded: this process's rows against everybody's columns."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

__all__ = ["contrastive_loss", "saturated_share"]

# InfoNCE below this teaches a row nothing more.
SATURATED = 1e-3


def contrastive_loss(
    images: Tensor,
    texts: Tensor,
    logit_scale: Tensor,
    *,
    all_images: Tensor | None = None,
    all_texts: Tensor | None = None,
    first: int = 0,
    label_smoothing: float = 0.0,
    margin: float = 0.0,
) -> Tensor:
    """Mean cross-entropy of picture to text and of text to picture over the local rows, a scalar in fp32 or fp64.

    Args:
        images: (b, P), unit rows, or PCM's reconstruction of such; row i belongs to row i of `texts`.
        texts: (b, P), unit rows.
        logit_scale: logarithm of the scale, (); it is not clamped here.
        all_images: (B, P), the rows of all processes; the local ones if not given. `all_texts` likewise.
        first: index of the first local row among all.
        label_smoothing: share of each target that is spread over all columns.
        margin: hard negatives: adds margin x the two texts' cosine, a constant, to the cosine of a wrong pair.
    """
    all_images = images if all_images is None else all_images
    all_texts = texts if all_texts is None else all_texts
    # bf16 logits alone would cost 3 % of the gradient.
    with torch.autocast(images.device.type, enabled=False):
        image_logits, text_logits, targets = _logits(images, texts, logit_scale, all_images, all_texts, first, margin)
        return 0.5 * (
            cross_entropy(image_logits, targets, label_smoothing=label_smoothing)
            + cross_entropy(text_logits, targets, label_smoothing=label_smoothing)
        )


@torch.no_grad()
def saturated_share(
    images: Tensor, texts: Tensor, logit_scale: Tensor, *, all_images: Tensor, all_texts: Tensor, first: int = 0
) -> Tensor:
    """Share of the local rows, of pictures and of texts, whose cross-entropy (plain, no margin) is below 1e-3."""
    with torch.autocast(images.device.type, enabled=False):
        *logits, targets = _logits(images, texts, logit_scale, all_images, all_texts, first, 0.0)
        return (cross_entropy(torch.cat(logits), targets.repeat(2), reduction="none") < SATURATED).float().mean()


def _logits(
    images: Tensor,
    texts: Tensor,
    logit_scale: Tensor,
    all_images: Tensor,
    all_texts: Tensor,
    first: int,
    margin: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of local pictures to all texts and of local texts to all pictures (b, B), and the true columns (b,)."""
    images, texts, all_images, all_texts = map(_full, (images, texts, all_images, all_texts))
    targets = torch.arange(first, first + len(images), device=images.device)
    to_texts, to_images = images @ all_texts.T, texts @ all_images.T
    if margin:
        likeness = margin * (texts @ all_texts.T).detach()
        likeness[torch.arange(len(targets), device=targets.device), targets] = 0
        to_texts, to_images = to_texts + likeness, to_images + likeness
    scale = logit_scale.to(images.dtype).exp()
    return scale * to_texts, scale * to_images, targets


def _full(features: Tensor) -> Tensor:
    return features if features.dtype == torch.float64 else features.float()
