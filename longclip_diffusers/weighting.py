"""What a prompt's weights do to the encoder's states, which are there already: one forward pass at a time."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from .errors import PromptError
from .windows import Window, WindowPlan

__all__ = ["blended", "weighted"]

Spans = Sequence[tuple[int, int]]
SMALLEST = 1e-5  # compel's, at which the tangent below is large and not yet infinite


def weighted(
    states: Tensor,
    window: Window,
    empty: Tensor,
    *,
    syntax: str,
    read_without: Callable[[Spans], Iterable[Tensor]],
) -> Tensor:
    """The states (N, D) of a window with its weights; the very same where all are 1.

    Args:
        empty: (N, D), the states of the window of empty text.
        syntax: of the window's plan. "a1111": row = empty + weight * (row - empty). "a1111-mean": row = weight * row,
            then all rows times what restores their mean. "compel": as "a1111"; then, for every run of tokens below 1,
            blended with the same of a reading that is blind to that run, the more the nearer its weight is to 0.
        read_without: gives the window's states for each of some spans of rows, those masked.

    Raises:
        PromptError: a weight leads out of the dtype's range, or (a1111-mean) to states without a mean.
    """
    if not window.weights and window.share == 1:
        return states
    exact = torch.promote_types(states.dtype, torch.float32)  # half precision has three digits, and sums to be divided
    rows, base = states.to(exact), empty.to(exact)
    first = 1 + window.num_context
    factors = rows.new_ones(len(rows), 1)
    factors[first : first + len(window.weights), 0] = rows.new_tensor(window.weights)
    if syntax == "compel":
        runs = list(_runs_below_one(window.weights, first))
        without = (each.to(exact) for each in read_without([span for span, _ in runs]))
        masked = (_from_empty(each, base, factors) for each in without)
        rows = _faded(_from_empty(rows, base, factors), masked, [weight for _, weight in runs])
    elif syntax == "a1111-mean":
        rows = _mean_restored(rows, factors)
    else:
        rows = _from_empty(rows, base, factors)
    rows = (base + window.share * (rows - base) if window.share != 1 else rows).to(states.dtype)
    if not torch.isfinite(rows).all():
        raise PromptError(f"The weights lead out of {states.dtype}'s range, in {window.text!r:.60}. Give smaller ones.")
    return rows


def blended(values: Tensor, plans: Sequence[WindowPlan]) -> Tensor:
    """(B, ...): for each plan the sum of its readings' values (R, ...), R >= B, each times the reading's share."""
    if all(plan.readings == (plan,) and plan.share == 1 for plan in plans):
        return values
    exact = values.to(torch.promote_types(values.dtype, torch.float32))
    sums = []
    for plan, parts in zip(plans, exact.split([len(plan.readings) for plan in plans]), strict=True):
        shares = [reading.share for reading in plan.readings]
        sums.append(sum(share * part for share, part in zip(shares, parts, strict=True)))
    return torch.stack(sums).to(values.dtype)


def _from_empty(rows: Tensor, empty: Tensor, factors: Tensor) -> Tensor:
    return torch.where(factors == 1, rows, empty + (rows - empty) * factors)


def _mean_restored(rows: Tensor, factors: Tensor) -> Tensor:
    scaled = rows * factors
    return scaled * (rows.mean() / scaled.mean())


def _faded(rows: Tensor, masked: Iterable[Tensor], weights: Sequence[float]) -> Tensor:
    # compel's tangent: 0 at weight 1, 1 at a half (both alike), without bound at 0.
    total = 1.0
    for without, weight in zip(masked, weights, strict=True):
        strength = math.tan((1 - max(weight, SMALLEST)) * math.pi / 2)
        rows, total = rows + strength * without, total + strength
    return rows / total


def _runs_below_one(weights: Sequence[float], first: int) -> Iterator[tuple[tuple[int, int], float]]:
    for weight, run in groupby(weights):
        length = len(list(run))
        if weight < 1:
            yield (first, first + length), weight
        first += length
