"""The order of samples: from (seed, step) alone, and no sample twice in a global batch."""

import time

import pytest

from longclip_diffusers import LongClipError
from longclip_diffusers.training.data import BatchOrder


def test_an_epoch_is_a_permutation_without_its_last_part_and_every_epoch_another():
    order = BatchOrder(num_samples=23, batch_size=5, seed=0)
    epochs = [[index for step in range(4 * e + 1, 4 * e + 5) for index in order.indices(step)] for e in range(5)]
    assert order.steps_per_epoch == 4
    for epoch in epochs:
        assert len(set(epoch)) == 20
        assert set(epoch) <= set(range(23))
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert set().union(*epochs) == set(range(23))  # other samples are dropped each time


def test_the_seed_decides():
    first, again, other = (BatchOrder(100, 10, seed).indices(7) for seed in (1, 1, 2))
    assert first == again != other


def test_the_ranks_parts_joined_are_the_single_process_batch():
    whole = BatchOrder(50, 12, seed=3)
    parts = [BatchOrder(50, 12, seed=3, rank=rank, num_processes=3) for rank in range(3)]
    for step in range(1, 11):
        assert whole.indices(step) == [index for part in parts for index in part.indices(step)]
        slots = [(part, slot) for part in parts for slot in range(4)]
        for attempt in (1, 2, 3):
            for slot, (part, own) in enumerate(slots):
                if attempt <= whole.num_replacements(slot):
                    assert whole.replacement(step, slot, attempt) == part.replacement(step, own, attempt)


@pytest.mark.parametrize(("num_samples", "batch_size"), [(50, 12), (48, 12), (13, 12), (12, 12), (5, 1)])
def test_replacements_are_outside_the_batch_and_nobody_elses(num_samples, batch_size):
    order = BatchOrder(num_samples, batch_size, seed=0)
    for step in range(1, 3 * order.steps_per_epoch + 1):
        replacements = [
            order.replacement(step, slot, attempt)
            for slot in range(batch_size)
            for attempt in range(1, order.num_replacements(slot) + 1)
        ]
        # Exactly the samples that the batch does not hold, each once.
        assert sorted(replacements + order.indices(step)) == list(range(num_samples))


def test_a_million_samples_are_quick():
    order, start = BatchOrder(1_200_000, 2048, seed=0), time.perf_counter()
    for step in range(1, 101):
        order.indices(step)
    assert time.perf_counter() - start < 2  # 0.05 s where the machine is free; without the cache 5 s


def test_too_few_samples_and_uneven_parts_are_refused():
    with pytest.raises(LongClipError, match="7 samples do not fill a batch of 8"):
        BatchOrder(7, 8, seed=0)
    with pytest.raises(LongClipError, match="8 cannot be shared evenly by 3 processes"):
        BatchOrder(100, 8, seed=0, num_processes=3)
    with pytest.raises(LongClipError, match="A batch of 0"):
        BatchOrder(100, 0, seed=0)


def test_groups_stay_together_in_every_batch():
    order = BatchOrder(num_samples=38, batch_size=8, seed=0, group_size=4)
    for step in range(1, 13):
        indices = order.indices(step)
        assert (
            [index - indices[0] for index in indices[:4]]
            == [index - indices[4] for index in indices[4:]]
            == [0, 1, 2, 3]
        )
        assert indices[0] % 4 == indices[4] % 4 == 0
    assert sorted(index for step in range(1, 5) for index in order.indices(step)) != list(range(32))
