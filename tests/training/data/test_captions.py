"""Varied captions: made of the caption's own sentences, and different from draw to draw."""

import random

import pytest

from longclip_diffusers.sentences import split_sentences
from longclip_diffusers.training.data import Sample
from longclip_diffusers.training.data.captions import vary

SENTENCES = ["Mr. X has a dog.", "It is No. 5 of six.", "The sky is red.", "A cat sleeps.", "Then it rains."]
LONG = Sample(" ".join(SENTENCES), SENTENCES[0])


def draws(mode, sample=LONG, num=200):
    return [vary(sample, mode, random.Random(seed)) for seed in range(num)]


def test_debias_drops_the_first_sentence_from_the_short_caption_and_samples_the_long_one():
    varied = draws("debias")
    assert {sample.short_caption for sample in varied} == set(SENTENCES[1:])
    kept = [split_sentences(sample.caption) for sample in varied]
    assert {len(sentences) for sentences in kept} == {3, 4, 5}  # half of five or more
    for sentences in kept:
        assert len(set(sentences)) == len(sentences)
        assert set(sentences) <= set(SENTENCES)
    assert len({sentences[0] for sentences in kept}) == 5  # in any order


def test_sub_takes_a_run_of_up_to_three_sentences_and_leaves_the_long_caption():
    runs = {" ".join(SENTENCES[start : start + length]) for length in (1, 2, 3) for start in range(6 - length)}
    varied = draws("sub", num=400)
    assert {sample.short_caption for sample in varied} == runs
    assert {sample.caption for sample in varied} == {LONG.caption}


@pytest.mark.parametrize("mode", ["debias", "sub"])
def test_one_sentence_stays_as_it_is(mode):
    single = Sample("A dog on a hill.", "dog")
    assert set(draws(mode, single, 5)) == {single}


def test_as_written_changes_nothing():
    assert set(draws("as-written", num=5)) == {LONG}
