"""The floating-point operations of a contrastive step, counted by torch on shapes alone: nothing is computed."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPModel

from .contrastive import text_chunk
from .gradcache import sorted_chunks

__all__ = ["step_flops"]


def step_flops(
    clip: CLIPModel,
    long_lengths: Sequence[int],
    short_lengths: Sequence[int],
    *,
    micro_batch: int,
    replay: bool,
    device: torch.device,
) -> float:
    """FLOPs of both towers, forward and backward, for a batch of pictures and captions of these lengths in tokens.

    Losses and PCA are not counted: they are below a hundredth even at a batch of 2048.

    Args:
        clip: its sizes and which parameters are trained are read, not its values.
        long_lengths: of the batch's long captions, `short_lengths` likewise.
        micro_batch: samples encoded at once, on `device`: chunks of captions are as `contrastive_backward` makes them.
        replay: whether everything is encoded a second time for the gradient.
    """
    twin = _twin(clip)
    vision = clip.vision_model.config
    pixels = torch.zeros(1, vision.num_channels, vision.image_size, vision.image_size, device="meta")
    total = len(long_lengths) * _count(lambda: twin.visual_projection(twin.vision_model(pixels).pooler_output), replay)
    caption = _of_length(lambda ids: twin.text_projection(twin.text_model(ids).pooler_output), replay)
    for lengths in (long_lengths, short_lengths):
        for indices in sorted_chunks(lengths, text_chunk(lengths, micro_batch, device)):
            total += len(indices) * caption(lengths[indices[0]])
    return float(total)


def _of_length(encode: Callable[[Tensor], Tensor], replay: bool) -> Callable[[int], int]:
    """FLOPs of one caption by its length: a polynomial of degree two (attention), found from three lengths."""

    def count(length: int) -> int:
        return _count(lambda: encode(torch.zeros(1, length, dtype=torch.long, device="meta")), replay)

    one, two, three = map(count, (1, 2, 3))
    return lambda length: one + (length - 1) * (two - one) + (length - 1) * (length - 2) * (three - 2 * two + one) // 2


def _twin(clip: CLIPModel) -> CLIPModel:
    """The same shapes without values; eager attention, whose products every version of the counter knows."""
    with torch.device("meta"):
        twin = CLIPModel._from_config(copy.deepcopy(clip.config), attn_implementation="eager")
    for mine, theirs in zip(twin.parameters(), clip.parameters(), strict=True):
        mine.requires_grad_(theirs.requires_grad)
    return twin


def _count(encode: Callable[[], Tensor], replay: bool) -> int:
    """Of one row: forward, the backward pass where there is one, and with it the forward pass again."""
    with FlopCounterMode(display=False) as forward:
        features = encode()
    if not features.requires_grad:
        return forward.get_total_flops()
    with FlopCounterMode(display=False) as backward:
        features.sum().backward()
    return (2 if replay else 1) * forward.get_total_flops() + backward.get_total_flops()
