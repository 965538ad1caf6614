"""Batches for the trainer: loaded ahead by worker processes, bad samples replaced, the same again after a resume."""

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from ...errors import LongClipError
from .captions import CAPTION_MODES, CaptionMode, vary
from .order import BatchOrder
from .sample import BadSample, Sample, TextImageData

__all__ = ["Batch", "batches"]

MAX_BAD_IN_A_ROW = 50
MAX_WORKERS = 8  # more than this a disk seldom feeds
Slot = tuple[int, int, int]  # step, slot of this rank, sample
T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """One rank's part of a step's batch: samples, their indices in the data, and why the replaced ones were bad."""

    step: int
    samples: list[Sample]
    indices: list[int]
    bad: tuple[str, ...] = ()

    @property
    def num_bad(self) -> int:
        """Samples that were bad, replacements included."""
        return len(self.bad)


def batches(
    data: TextImageData,
    order: BatchOrder,
    first_step: int,
    *,
    captions: CaptionMode = "as-written",
    seed: int,
    num_workers: int | None = None,
    prepare: Callable[[Sample], Sample] | None = None,
) -> Iterator[Batch]:
    """The batches of `first_step` and all later ones, without end; the caller stops.

    A step's batch depends on (data, order, captions, seed, step): not on the workers, on earlier steps or on the
    number of processes; torch's global random numbers are left alone.

    Args:
        captions: how they are varied, see `captions.vary`.
        num_workers: None = none for texts, the storybook or a single core, else the cores but one, at most 8.
        prepare: applied to each sample where it is loaded, so that a worker sends a small picture instead of a large
            one. It must be picklable, and give the same for the same sample.

    Raises:
        LongClipError: wrong arguments; more than 50 bad samples in a row; a batch with too many bad samples for the
            rest of the data to replace; a worker that died.
    """
    if captions not in CAPTION_MODES:
        raise LongClipError(f"captions {captions!r} is unknown. Known: {', '.join(CAPTION_MODES)}.")
    if order.num_samples != len(data):
        raise LongClipError(f"The order is of {order.num_samples} samples, {data.name} has {len(data)}.")
    slots = Slots(data, order, captions, seed, prepare)
    workers = _default_workers(data) if num_workers is None else num_workers
    return _assemble(slots, _loaded(slots, first_step, workers), first_step)


class Slots(Dataset):
    """Samples as they stand in a batch; a bad one is its message, since an exception would end its worker's batch."""

    def __init__(
        self,
        data: TextImageData,
        order: BatchOrder,
        captions: CaptionMode,
        seed: int,
        prepare: Callable[[Sample], Sample] | None,
    ):
        self.data, self.order, self.captions, self.seed, self.prepare = data, order, captions, seed, prepare

    def __getitem__(self, place: Slot) -> Sample | str:
        step, slot, index = place
        try:
            sample = self.data[index]
        except BadSample as error:
            return str(error)
        rng = random.Random(f"captions {self.seed} {step} {self.order.global_slot(slot)}")
        sample = vary(sample, self.captions, rng)
        return self.prepare(sample) if self.prepare else sample

    def stand_ins(self, step: int, slot: int) -> Iterator[int]:
        """Samples for a bad one's slot: its own replacements, then (in data of few batches) other slots'."""
        own = range(self.order.local_batch_size)
        for other in (slot, *own[:slot], *own[slot + 1 :]):
            for attempt in range(1, self.order.num_replacements(other) + 1):
                yield self.order.replacement(step, other, attempt)


def _assemble(slots: Slots, loaded: Iterator[Sample | str], first_step: int) -> Iterator[Batch]:
    in_a_row: list[str] = []
    for step in count(first_step):
        samples, indices, bad = [], slots.order.indices(step), []
        taken = set(indices)
        for slot in range(len(indices)):
            sample = next(loaded)
            stand_ins = slots.stand_ins(step, slot)
            while isinstance(sample, str):
                bad.append(sample)
                in_a_row.append(sample)
                if len(in_a_row) > MAX_BAD_IN_A_ROW:
                    raise _unusable(f"{len(in_a_row)} samples in a row of {slots.data.name} cannot be used", in_a_row)
                index = next((index for index in stand_ins if index not in taken), None)
                if index is None:
                    raise _unusable(f"{slots.data.name} has too few good samples to fill the batch of step {step}", bad)
                taken.add(index)
                indices[slot] = index
                sample = slots[step, slot, index]
            in_a_row.clear()
            samples.append(sample)
        yield Batch(step, samples, indices, tuple(bad))


def _unusable(what: str, reasons: list[str]) -> LongClipError:
    return LongClipError(f"{what}. The first: {' '.join(reasons[:3])} Check the files and paths.")


def _loaded(slots: Slots, first_step: int, num_workers: int) -> Iterator[Sample | str]:
    loader = DataLoader(
        slots,
        batch_size=None,  # sample by sample: all workers fill one batch, and memory holds one batch ahead
        sampler=_places(slots.order, first_step),
        num_workers=num_workers,
        collate_fn=_as_it_is,
        prefetch_factor=max(2, -(-slots.order.local_batch_size // num_workers)) if num_workers else None,
        # Without one of its own the loader draws its seed from torch's global numbers, which a resume restores.
        generator=torch.Generator(),
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise LongClipError(f"A data worker died: {error} Is memory short? Fewer workers need less.") from error


def _places(order: BatchOrder, first_step: int) -> Iterator[Slot]:
    for step in count(first_step):
        for slot, index in enumerate(order.indices(step)):
            yield step, slot, index


def _as_it_is(sample: T) -> T:
    return sample


def _default_workers(data: TextImageData) -> int:
    if not data.workers_help:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun and accelerate say so
    return max(0, min(MAX_WORKERS, cores // processes - 1))
