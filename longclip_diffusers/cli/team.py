"""A command that `torchrun` or `accelerate launch` started several times: who does what, and how it went for all.

The processes share a store of the launcher's, no process group: they exchange a few numbers, never tensors, and a
collective would time out where one of them draws for longer than the others.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from ..errors import LongClipError

if TYPE_CHECKING:
    from torch.distributed import Store

__all__ = ["Team", "join_team"]

MEETING = timedelta(minutes=10)  # for machines that start at different times
LAST_WORK = timedelta(days=1)  # at the end of a run: a process may still load its model, or be at one long piece


@dataclass(frozen=True)
class Team:
    """The processes of one run, of which this is number `rank` of `size`. Without a store it is alone."""

    rank: int = 0
    size: int = 1
    store: "Store | None" = None

    @property
    def is_first(self) -> bool:
        """Whether this process speaks for all of them."""
        return self.rank == 0

    def device(self, wanted: str) -> str:
        """The device meant by `wanted`: this process's own GPU for auto and cuda, shared where there are too few."""
        import torch

        if self.size == 1 or wanted not in ("auto", "cuda") or not torch.cuda.is_available():
            return wanted
        index = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        torch.cuda.set_device(index)  # kernels of extensions run on the current device, wherever their tensors lie
        return f"cuda:{index}"

    def agreed(self, decide: Callable[[], list[int]]) -> list[int]:
        """What the first process decides, in every process. Once in a run."""
        if self.store is None:
            return decide()
        if self.is_first:
            self.store.set("agreed", json.dumps(decide()))
        with _reached():
            return json.loads(self.store.get("agreed"))

    def share(self, count: int) -> Iterator[int]:
        """This process's part of the numbers 0 to `count` - 1: each goes, in order, to whoever is free. Once in a run.

        Raises:
            LongClipError: the other processes are gone.
        """
        if self.store is None:
            yield from range(count)
            return
        while (number := self._next()) < count:
            yield number

    def summed(self, values: Sequence[int]) -> list[int]:
        """Each value's sum over the processes, when all of them have got here. Once in a run, as its end.

        A launcher ends the others when one process fails; nobody may return a failure before all are here.

        Raises:
            LongClipError: the other processes are gone.
        """
        if self.store is None:
            return list(values)
        with _reached():
            self.store.set(f"done/{self.rank}", json.dumps(list(values)))
            rows = [json.loads(self.store.get(f"done/{rank}")) for rank in range(self.size)]
            self.store.set(f"left/{self.rank}", "")
            if self.is_first:  # the store may live in this process
                self.store.wait([f"left/{rank}" for rank in range(self.size)])
        return [sum(column) for column in zip(*rows, strict=True)]

    def _next(self) -> int:
        assert self.store is not None
        with _reached():
            return self.store.add("next", 1) - 1


def join_team() -> Team:
    """The processes that were launched together; alone without a launcher.

    Raises:
        LongClipError: the others cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Team()
    import torch.distributed as dist

    with _reached():
        store, rank, size = next(dist.rendezvous("env://", timeout=MEETING))
        store.set_timeout(LAST_WORK)
    # A launcher that starts failed processes again may keep its store.
    return Team(rank, size, dist.PrefixStore(f"team/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store))


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # all errors of torch.distributed derive from it
        reason = str(error).strip().splitlines()[0]
        raise LongClipError(
            f"The other processes of this run cannot be reached ({reason}). What is done is kept: start the same "
            "command again."
        ) from error
