"""Batches: the same after a resume and whatever the workers; bad samples replaced, counted, never twice."""

import os
from dataclasses import replace
from itertools import islice

import pytest
import torch
from PIL import Image

from longclip_diffusers import LongClipError
from longclip_diffusers.training.data import BatchOrder, Sample, TextImageData, batches, open_data
from longclip_diffusers.training.data.sample import BadSample

# Python 3.12 and later say so of any fork beside another library's threads.
forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class Numbers(TextImageData):
    """Captions of three sentences that tell their index; some samples are bad."""

    name, has_images = "numbers", False

    def __init__(self, num_samples, bad=()):
        self.num_samples, self.bad = num_samples, frozenset(bad)

    def __len__(self):
        return self.num_samples

    def texts(self, index):
        if index in self.bad:
            raise BadSample(f"number {index} is bad.")
        return f"This is {index}. The next is {index + 1}. It is a number.", ""

    def image(self, index):
        raise AssertionError("no pictures here")


def taken(data, order, first=1, num=8, **options):
    return list(islice(batches(data, order, first, seed=0, **options), num))


def test_samples_are_those_of_the_order():
    order = BatchOrder(20, 6, seed=5)
    for batch in taken(Numbers(20), order):
        assert batch.indices == order.indices(batch.step)
        assert [sample.short_caption for sample in batch.samples] == [f"This is {index}." for index in batch.indices]
        assert batch.num_bad == 0


@pytest.mark.parametrize("captions", ["as-written", "debias", "sub"])
def test_a_resumed_run_sees_the_same_batches(captions):
    data, order = Numbers(30, bad=range(0, 30, 7)), BatchOrder(30, 8, seed=1)
    whole = taken(data, order, num=9, captions=captions)
    assert taken(data, order, first=5, num=5, captions=captions) == whole[4:]


def test_varied_captions_have_an_effect_that_changes_from_step_to_step_and_with_the_seed():
    data, order = Numbers(4), BatchOrder(4, 4, seed=1)
    written = {sample for batch in taken(data, order) for sample in batch.samples}
    assert len(written) == 4
    debiased = taken(data, order, captions="debias")
    assert len({sample for batch in debiased for sample in batch.samples}) > 8
    assert next(batches(data, order, 1, captions="debias", seed=1)) != debiased[0]


@pytest.mark.parametrize("captions", ["as-written", "debias"])
def test_two_ranks_joined_are_the_single_process(captions):
    data = Numbers(40, bad=range(0, 40, 5))
    whole = taken(data, BatchOrder(40, 8, seed=2), captions=captions)
    parts = [taken(data, BatchOrder(40, 8, 2, rank, 2), captions=captions) for rank in range(2)]
    for one, first, second in zip(whole, *parts, strict=True):
        assert one.samples == first.samples + second.samples
        assert one.num_bad == first.num_bad + second.num_bad


@pytest.mark.parametrize(("num_samples", "bad"), [(200, range(0, 200, 4)), (10, [3, 4]), (9, [8]), (12, [0, 1, 2, 3])])
def test_bad_samples_are_replaced_counted_and_no_sample_stands_twice_in_a_batch(num_samples, bad):
    order, num_bad = BatchOrder(num_samples, 8, seed=0), 0
    for batch in taken(Numbers(num_samples, bad), order, num=50):
        assert len(set(batch.indices)) == len(batch.samples) == 8
        assert not set(batch.indices) & set(bad)
        assert [sample.short_caption for sample in batch.samples] == [f"This is {index}." for index in batch.indices]
        first_bad = [index for index in order.indices(batch.step) if index in bad]
        assert {f"number {index} is bad." for index in first_bad} <= set(batch.bad)
        num_bad += batch.num_bad
    assert num_bad > 0


def test_a_batch_that_cannot_be_filled_names_its_bad_samples():
    with pytest.raises(LongClipError, match=r"too few good samples to fill the batch of step 1.*number [01] is bad"):
        taken(Numbers(9, bad=[0, 1]), BatchOrder(9, 8, seed=0))


def test_more_than_fifty_bad_in_a_row_name_the_first():
    with pytest.raises(LongClipError, match=r"51 samples in a row of numbers cannot be used.*number \d+ is bad"):
        taken(Numbers(1000, bad=range(1000)), BatchOrder(1000, 8, seed=0))
    # As many, but never in a row: each is followed by a good one.
    assert sum(batch.num_bad for batch in taken(Numbers(1000, range(0, 1000, 2)), BatchOrder(1000, 8, 0), num=30)) > 60


def half(sample: Sample) -> Sample:
    return replace(sample, image=sample.image.reduce(2))


@forks
def test_workers_change_nothing_and_what_is_prepared_is_prepared_there(tmp_path):
    for number in range(6):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"One {number}. Two. Three.", encoding="utf-8")
    (tmp_path / "3.png").write_bytes(b"broken")
    data, order = open_data(str(tmp_path)), BatchOrder(6, 4, seed=0)
    alone, helped = (taken(data, order, num=5, captions="sub", num_workers=workers, prepare=half) for workers in (0, 1))
    assert alone == helped
    assert sum(batch.num_bad for batch in alone) > 0
    for batch in alone:
        assert [sample.image.getpixel((0, 0))[0] for sample in batch.samples] == batch.indices
        assert {sample.image.size for sample in batch.samples} == {(4, 4)}


def test_torchs_random_numbers_are_left_alone():
    state = torch.get_rng_state()
    taken(Numbers(20), BatchOrder(20, 4, seed=0), num=7)
    assert torch.equal(torch.get_rng_state(), state)


class Fatal(Numbers):
    def texts(self, index):
        os._exit(1)


@forks
def test_a_worker_that_dies_is_told_in_our_words():
    with pytest.raises(LongClipError, match=r"A data worker died: DataLoader worker .*Fewer workers need less"):
        taken(Fatal(8), BatchOrder(8, 4, seed=0), num_workers=1)


def test_wrong_arguments_are_refused_at_once():
    with pytest.raises(LongClipError, match=r"captions 'debiased' is unknown\. Known: as-written, debias, sub"):
        batches(Numbers(9), BatchOrder(9, 3, 0), 1, captions="debiased", seed=0)
    with pytest.raises(LongClipError, match="order is of 8 samples, numbers has 9"):
        batches(Numbers(9), BatchOrder(8, 2, 0), 1, seed=0)
