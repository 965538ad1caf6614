"""Which samples a step trains with, from (seed, step) alone: a run resumes anywhere without a position to save."""

import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...errors import LongClipError

__all__ = ["BatchOrder"]


@dataclass(frozen=True)
class BatchOrder:
    """Every epoch is a permutation of its own, cut into global batches; what is left of it at the end is dropped.

    Attributes:
        batch_size: of the global batch. Rank r of `num_processes` gets the r-th contiguous part.
        group_size: neighbours in the data that stay together: hard negatives for one another, see `TextImageData`.

    Raises:
        LongClipError: fewer samples than a batch, or a batch that the processes cannot share evenly.
    """

    num_samples: int
    batch_size: int
    seed: int
    rank: int = 0
    num_processes: int = 1
    group_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.num_processes:
            raise LongClipError(
                f"A batch of {self.batch_size} cannot be shared evenly by {self.num_processes} processes."
            )
        if self.num_samples < self.batch_size:
            raise LongClipError(
                f"{self.num_samples} samples do not fill a batch of {self.batch_size}, and none is used twice in one. "
                "Lower --batch-size or give more data."
            )

    @property
    def local_batch_size(self) -> int:
        """Samples of one rank."""
        return self.batch_size // self.num_processes

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.num_samples // self.batch_size

    def global_slot(self, slot: int) -> int:
        """The place in the global batch of this rank's `slot`."""
        return self.rank * self.local_batch_size + slot

    def indices(self, step: int) -> list[int]:
        """This rank's samples in `step`, counted from 1."""
        permutation, start = self._place(step)
        first = start + self.global_slot(0)
        return permutation[first : first + self.local_batch_size].tolist()

    def num_replacements(self, slot: int) -> int:
        """How often `replacement` has another sample for this rank's `slot`."""
        return (self.num_samples - 1 - self.global_slot(slot)) // self.batch_size

    def replacement(self, step: int, slot: int, attempt: int) -> int:
        """The sample that takes a bad one's place: what has the same slot `attempt` batches later, round the epoch.

        No two (slot, attempt) of a step share one, on any rank, and none is in the step's own global batch.

        Args:
            slot: of this rank's part.
            attempt: 1 to `num_replacements(slot)`.
        """
        permutation, start = self._place(step)
        return int(permutation[(start + self.global_slot(slot) + attempt * self.batch_size) % self.num_samples])

    def _place(self, step: int) -> tuple[np.ndarray, int]:
        epoch, batch = divmod(step - 1, self.steps_per_epoch)
        return _permutation(self.num_samples, self.seed, epoch, self.group_size), batch * self.batch_size


@lru_cache(maxsize=4)  # loading runs ahead into the next epoch while the last one's bad samples are replaced
def _permutation(num_samples: int, seed: int, epoch: int, group_size: int) -> np.ndarray:
    # RandomState, whose numbers numpy promises never to change: an upgrade between two sittings keeps the order.
    random_state = np.random.RandomState(random.Random(f"order {seed} {epoch}").getrandbits(32))
    if group_size == 1:
        return random_state.permutation(num_samples)
    groups = random_state.permutation(num_samples // group_size)
    members = (groups[:, None] * group_size + np.arange(group_size)).ravel()
    return np.append(members, np.arange(len(members), num_samples))  # a last group that is not whole comes last
