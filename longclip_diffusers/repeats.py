"""Windows that are read again and again: the pages of a book share their negative prompt and their empty windows."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

__all__ = ["remembered", "repeats_remembered"]

# Of the forward passes of one page: a text's last ones, the negative's and the empty window's, of two encoders. So
# what the next page shares is still there, and what is kept does not grow with a text or with a book.
PASSES = 8

Result = TypeVar("Result")
_passes: ContextVar["OrderedDict[Hashable, Any] | None"] = ContextVar("passes", default=None)


@contextmanager
def repeats_remembered() -> Iterator[None]:
    """Within this, an encoder is not asked again what it was asked just before: the same windows in one forward pass.

    Results are the same bit for bit, since it is the same pass. The encoders' weights, LoRA scales and training mode
    must stay as they are meanwhile. At most 8 passes are kept, of at most 16 windows each: up to 97 MiB with a
    Long-CLIP-L in float32, mostly far less.
    """
    token = _passes.set(OrderedDict())
    try:
        yield
    finally:
        _passes.reset(token)


def remembered(asked: Hashable, read: Callable[[], Result]) -> Result:
    """What `read` gave when the same was `asked` before, within `repeats_remembered`; else what it gives now."""
    passes = _passes.get()
    if passes is None:
        return read()
    if asked not in passes:
        passes[asked] = read()
    passes.move_to_end(asked)
    while len(passes) > PASSES:
        passes.popitem(last=False)
    return passes[asked]
