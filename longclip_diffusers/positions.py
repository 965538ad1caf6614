"""Position tables, pure: knowledge-preserved stretching (KPS, arXiv 2403.15378) and plain linear interpolation."""

import torch
from torch import Tensor

from .errors import ModelError

__all__ = [
    "CLIP_LENGTH",
    "KEPT_ROWS",
    "LONG_LENGTH",
    "STRETCH_FACTOR",
    "is_interpolated",
    "linear_positions",
    "stretch_positions",
    "stretch_to",
    "stretched_length",
]

CLIP_LENGTH = 77  # positions of OpenAI's CLIP, and of every Stable Diffusion trained with it
KEPT_ROWS = 20  # "well-trained" rows that the paper leaves alone
STRETCH_FACTOR = 4  # new rows for each old one behind them
LONG_LENGTH = KEPT_ROWS + STRETCH_FACTOR * (CLIP_LENGTH - KEPT_ROWS)  # 248


def stretched_length(rows: int, *, keep: int = KEPT_ROWS, factor: int = STRETCH_FACTOR) -> int:
    """Rows of a table of `rows` rows once stretched: `keep + factor * (rows - keep)`; longer than 77 stays as it is."""
    return rows if rows > CLIP_LENGTH else keep + factor * (rows - keep)


def stretch_positions(table: Tensor, *, keep: int = KEPT_ROWS, factor: int = STRETCH_FACTOR) -> Tensor:
    """The KPS-stretched table, (keep + factor * (N - keep), D), in the table's dtype and on its device.

    New row j is old row j up to `keep`, then the old table read at `keep + (j - keep) / factor`; the last
    `factor - 1` rows continue the final difference. So does `load_from_clip` in beichenzbc/Long-CLIP:
    model/longclip.py, which this follows where the paper's formula differs. It computes in the model's dtype
    (often fp16); here the sum is taken in float32 at least, where weights of 1/4 are exact, and rounded once.

    Args:
        table: (N, D), floating. With N > 77 it is long already and comes back unchanged, so nothing is stretched twice.
        keep: rows left alone, 0 <= keep < N.
        factor: new rows for each row behind them, at least 1.

    Raises:
        ModelError: not a table of at least two rows, or `keep`/`factor` out of range.
    """
    rows = _num_rows(table)
    if rows > CLIP_LENGTH:
        return table
    if not 0 <= keep < rows:
        raise ModelError(f"keep must be from 0 to {rows - 1} for a position table of {rows} rows, not {keep}.")
    if factor < 1:
        raise ModelError(f"factor must be 1 or more, not {factor}.")
    return torch.cat([table[:keep], _read(table, *_steps(keep, rows, factor))])


def stretch_to(table: Tensor, length: int, *, keep: int = KEPT_ROWS) -> Tensor:
    """The KPS-stretched table (length, D): the smallest whole factor that reaches `length` rows, cut there.

    A table with N > 77, or with `length` rows or more, comes back unchanged.

    Raises:
        ModelError: as `stretch_positions`.
    """
    rows = _num_rows(table)
    if rows > CLIP_LENGTH or rows >= length:
        return table
    factor = -(-(length - keep) // max(1, rows - keep))
    return stretch_positions(table, keep=keep, factor=factor)[:length]


def linear_positions(table: Tensor, *, length: int = LONG_LENGTH) -> Tensor:
    """The table read at `length` even steps from its first to its last row, (length, D): the ablation's baseline.

    Every row but the two ends moves, which is what KPS avoids. A table (N, D) with N > 77 comes back unchanged.

    Raises:
        ModelError: not a table of at least two rows, or `length` < N.
    """
    rows = _num_rows(table)
    if rows > CLIP_LENGTH:
        return table
    if length < rows:
        raise ModelError(f"A position table of {rows} rows cannot be stretched to {length}; give {rows} or more.")
    points = torch.linspace(0, rows - 1, length, dtype=torch.float64)
    return _read(table, points.long(), points.frac())


def is_interpolated(table: Tensor, *, keep: int = KEPT_ROWS, factor: int = STRETCH_FACTOR) -> bool:
    """Whether a long table's rows from `keep` on are still exact steps of 1/`factor`, that is: were never trained.

    "Exact" is to the rounding of the coarsest of float16, bfloat16 and the table's own dtype that holds the table
    without loss: the official code interpolates in fp16 and stores the outcome as float32. A table of 77 rows or
    fewer, or of a length that this `keep` and `factor` cannot give, is False.
    """
    rows = _num_rows(table)
    if rows <= CLIP_LENGTH or (rows - keep) % factor or rows - keep < 2 * factor:
        return False
    anchors = table[keep::factor].double().cpu()  # MPS has no float64
    lower, share = _steps(0, len(anchors), factor)
    limits = torch.finfo(_held_dtype(table))
    # Two products, a sum and a difference, each rounded once, each as large as the larger neighbour.
    first = lower.clamp(max=len(anchors) - 2)
    size = torch.maximum(anchors[first].abs(), anchors[first + 1].abs())
    tolerance = 4 * limits.eps * (size + limits.smallest_normal)
    return bool(((table[keep:].double().cpu() - _read(anchors, lower, share)).abs() <= tolerance).all())


def _num_rows(table: Tensor) -> int:
    if table.ndim != 2 or len(table) < 2 or not table.is_floating_point():
        raise ModelError(
            f"A position table is a floating (rows, width) tensor of two rows or more, not {table.dtype} of shape "
            f"{tuple(table.shape)}."
        )
    return len(table)


def _steps(start: int, rows: int, factor: int) -> tuple[Tensor, Tensor]:
    """Old row number and share of the way to the next one, for each new row from old row `start` on."""
    step = torch.arange(factor * (rows - start))
    return start + step // factor, (step % factor).double() / factor


def _read(table: Tensor, lower: Tensor, share: Tensor) -> Tensor:
    """The table (N, D) read `share` (M,) of the way from row `lower` (M,) to the next, straight on past the end."""
    first = lower.clamp(max=len(table) - 2)
    work = table.to(torch.float64 if table.dtype == torch.float64 else torch.float32)
    share = (share + (lower - first))[:, None].to(work)
    first = first.to(work.device)
    return ((1 - share) * work[first] + share * work[first + 1]).to(table.dtype)


def _held_dtype(table: Tensor) -> torch.dtype:
    coarse = (torch.bfloat16, torch.float16)
    return next((dtype for dtype in coarse if torch.equal(table.to(dtype).to(table.dtype), table)), table.dtype)
