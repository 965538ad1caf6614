"""Primary component matching: image features rebuilt from their principal components, for short captions to match.

The directions are the eigenvectors of the smaller of Gram matrix and covariance (three to five times cheaper than an
SVD of the batch). Their gradient is that of the projector alone: an SVD's own gradient divides by every difference of
two singular values and is NaN for duplicated rows; the projector needs the differences across the cut only.
"""

from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["is_identity", "reconstruct"]


def is_identity(rows: int, width: int, components: int) -> bool:
    """Whether so many components hold everything that `rows` centred features (rank at most rows - 1) can say."""
    return components >= min(rows - 1, width)


def reconstruct(
    features: Tensor, components: int = 32, *, backward: Literal["projector", "svd"] = "projector"
) -> tuple[Tensor, Tensor]:
    """The batch's mean plus each row's projection on the principal directions (B, P), and the variance kept, 0 to 1.

    The rows that come back are not normalised again, as in the released code. Computed in fp32 (fp64 for fp64),
    whatever autocast says. NaN in, NaN out.

    Args:
        features: (B, P), unit rows. `components` beyond their rank give them back as they are.
        components: principal directions kept, 0 or more.
        backward: projector, finite for duplicated rows and ties; svd is `torch.linalg.svd`'s own, as released.
    """
    features = features if features.dtype == torch.float64 else features.float()
    if is_identity(len(features), features.shape[1], components):
        return features, features.new_ones(())
    if not features.isfinite().all():  # the decomposition would raise; the loss is the place that judges
        return features * torch.nan, features.new_full((), torch.nan)
    with torch.autocast(features.device.type, enabled=False):
        mean = features.mean(dim=0, keepdim=True)
        centred = features - mean
        if backward == "svd":
            _, scales, directions = torch.linalg.svd(centred, full_matrices=False)
            top = directions[:components]
            projected, variances = centred @ top.T @ top, scales.detach().square()
            total, kept = variances.sum(), variances[:components].sum()
        else:
            energy = features.detach().square().sum()
            projected, kept, total = _Projection.apply(centred, components, energy)
        return mean + projected, torch.where(total > 0, kept / total, 1.0)


class _Projection(torch.autograd.Function):
    """Centred rows (B, P) -> their projection on the first directions; the sums of the kept and of all variances.

    With N the smaller side's matrix, Q = U_k U_k^T its projector and G the gradient of the result, dQ = S + S^T for
    S = U_r [(U_r^T dN U_k) / (l_k - l_r)] U_k^T: pairs of a kept and a dropped direction only.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, components: int, energy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        wide = rows.shape[0] <= rows.shape[1]
        values, vectors = torch.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)  # ascending
        values = values.clamp_min(0)
        cut = len(values) - components
        top = vectors[:, cut:]
        ctx.save_for_backward(rows, values, vectors, energy)
        ctx.wide, ctx.cut = wide, cut
        projected = top @ (top.T @ rows) if wide else (rows @ top) @ top.T
        kept, total = values[cut:].sum(), values.sum()
        ctx.mark_non_differentiable(kept, total)
        return projected, kept, total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradients[0]
        rows, values, vectors, energy = ctx.saved_tensors
        rest, top = vectors[:, : ctx.cut], vectors[:, ctx.cut :]
        gap = values[ctx.cut :] - values[: ctx.cut, None]
        # Rounding errors of the rows as they were before centring (sum of squares: energy) move eigenvalues by about
        # this much. A gap below it means nothing and is damped, so that ties and identical rows stay finite.
        limits = torch.finfo(values.dtype)
        noise = limits.eps * (values[-1] * energy).sqrt()
        inverse = gap / (gap.square() + noise.square()).clamp_min(limits.tiny)
        if ctx.wide:
            left, right = gradient.T @ rest, rows.T @ rest  # U_r^T (M + M^T) U_k without the B x B matrices
            mixed = left.T @ (rows.T @ top) + right.T @ (gradient.T @ top)
        else:
            mixed = (rows @ rest).T @ (gradient @ top) + (gradient @ rest).T @ (rows @ top)
        mixed = mixed * inverse
        if ctx.wide:
            turned = rest @ (mixed @ (top.T @ rows)) + top @ (mixed.T @ (rest.T @ rows))
            return top @ (top.T @ gradient) + turned, None, None
        turned = ((rows @ rest) @ mixed) @ top.T + ((rows @ top) @ mixed.T) @ rest.T
        return (gradient @ top) @ top.T + turned, None, None
