"""A large batch encoded in small chunks: captions sorted by length, and chunks encoded again for the gradient.

CLIP's text tower is causal and read out at the end-of-text token, so what is padded after it changes no pooled
feature: each chunk is only as long as its own longest caption. (Token states for a UNet are another matter: it reads
the padding too.)

GradCache (Gao et al. 2021) encodes all chunks without a graph, takes the loss of the whole batch, and encodes each
chunk again to carry the features' gradient into the tower, with the random numbers of the first time. That is what
activation checkpointing of a chunk does, so torch's own is used.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

__all__ = ["encode_chunks", "encode_sorted", "sorted_chunks"]


def sorted_chunks(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices of a batch in chunks of at most `size`, longest first: the first chunk shows the memory needed."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return [order[start : start + size] for start in range(0, len(order), size)]


def encode_chunks(encode: Callable[[Tensor], Tensor], chunks: Sequence[Tensor], *, replay: bool) -> Tensor:
    """The features of all chunks joined, (B, P).

    Args:
        encode: a chunk's features; it must enter autocast itself, or the chunks would share casts of the weights.
        chunks: what the tower reads, each with a first axis of its rows.
        replay: forget each chunk's activations and encode it again in the backward pass, one chunk at a time. A tower
            without trained parameters has none.
    """
    if replay:
        return torch.cat([checkpoint(encode, chunk, use_reentrant=False) for chunk in chunks])
    return torch.cat([encode(chunk) for chunk in chunks])


def encode_sorted(
    encode: Callable[[Tensor], Tensor],
    rows: Sequence[Sequence[int]],
    *,
    size: int,
    replay: bool,
    multiple: int = 1,
    longest: int | None = None,
) -> Tensor:
    """The features of captions (B, P), in the order given, encoded in sorted chunks.

    Args:
        rows: token ids from BOS to EOS; each is padded with its own EOS, which no position before it can see.
        size: captions a chunk.
        replay: as in `encode_chunks`.
        multiple: chunks' lengths are rounded up to it, for a compiled tower that should see few shapes, but never
            beyond `longest`, the tower's positions.
    """
    chunks = sorted_chunks([len(row) for row in rows], size)
    padded = [_padded([rows[index] for index in chunk], multiple, longest) for chunk in chunks]
    order = torch.tensor([index for chunk in chunks for index in chunk])
    features = encode_chunks(encode, padded, replay=replay)
    return features[order.argsort().to(features.device)]


def _padded(rows: Sequence[Sequence[int]], multiple: int, longest: int | None) -> Tensor:
    """(B, N), N the longest row's length rounded up."""
    end = rows[0][-1]
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=end)
    length = -(-ids.shape[1] // multiple) * multiple
    return torch.nn.functional.pad(ids, (0, min(length, longest or length) - ids.shape[1]), value=end)
