"""What several processes of one run say to each other; in a single process every function is the identity.

Gradients are averaged by one call at the end of a step instead of DDP's wrapper. DDP hooks one forward and one
backward pass; a step here has many forward passes (chunks of pictures, of long and of short captions, encoded again
in the backward pass), of which all but the last would need `no_sync`. Averaging once is that, without the wrapper.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["any_process", "average", "average_gradients", "gather", "num_processes", "rank"]

# As DDP: large enough for full bandwidth, small enough that the flat copy costs no memory worth speaking of.
BUCKET_BYTES = 25 * 2**20


def num_processes() -> int:
    """How many processes train together; 1 where no process group was made."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if num_processes() > 1 else 0


def gather(tensor: Tensor) -> Tensor:
    """The tensors (b, ...) of all processes, all of one shape, joined in the order of rank: (B, ...).

    The gradient flows back to every process: each gets the sum of what all processes' losses say of its rows.
    """
    return _Gather.apply(tensor) if num_processes() > 1 else tensor


class _Gather(torch.autograd.Function):
    # torch.distributed.nn.functional.all_gather is deprecated since torch 2.13, its successor is private; gloo has no
    # reduce_scatter in older versions, and features are small.
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.rows = len(tensor)
        parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(num_processes())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        summed = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes; on all of them the same parameters have gradients."""
    if num_processes() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        dist.all_reduce(flat)
        flat /= num_processes()
        for gradient, mean in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def any_process(flag: bool) -> bool:
    """Whether the flag is set in at least one process; all of them learn the same."""
    return any(_gather_objects(flag))


def average(values: Sequence[float]) -> list[float]:
    """Each value's mean over the processes."""
    rows = _gather_objects(list(values))
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def _gather_objects(value: Any) -> list[Any]:
    if num_processes() == 1:
        return [value]
    values = [None] * num_processes()
    dist.all_gather_object(values, value)
    return values


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one dtype and device, up to `BUCKET_BYTES` together or one alone."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        fits = size + gradient.nbytes <= BUCKET_BYTES
        if bucket and not (fits and (gradient.dtype, gradient.device) == (bucket[0].dtype, bucket[0].device)):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.nbytes
    if bucket:
        yield bucket
