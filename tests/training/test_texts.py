"""Texts as the anchor reads them: every one fits, and some are context windows."""

import random

import pytest

from longclip_diffusers import load_tokenizer
from longclip_diffusers.storybook.captions import chapter
from longclip_diffusers.storybook.scene import draw_scene
from longclip_diffusers.training.texts import first_window, fitting_text, short_text
from longclip_diffusers.windows import plan_windows


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


@pytest.fixture(scope="module")
def text():
    rng = random.Random("texts")
    return str(chapter(draw_scene(rng), rng, length=600))


def no_more(rng):
    raise AssertionError("a text that is long enough is joined to no other")


def test_a_long_texts_windows_are_read_with_context_and_without(text, tokenizer):
    read = {fitting_text(text, tokenizer, 120, random.Random(seed), no_more) for seed in range(60)}
    plain = {window.text for window in plan_windows(text, tokenizer, window=120).windows}
    related = plan_windows(text, tokenizer, window=120, context="related").windows
    behind = {" ".join([*window.context, window.text]) for window in related} - plain
    assert read <= plain | behind
    assert len(read & plain) > 2
    assert len(read & behind) > 10
    assert all(len(tokenizer(each).input_ids) <= 120 for each in read)


def test_a_short_text_is_whole_or_one_of_its_sentences_and_fits(tokenizer):
    text = "The roof is red. Ada owns a kite. It is blue. " + "The sea lay very still. " * 30
    whole = first_window(text, tokenizer, 77)
    told = [short_text(text, tokenizer, 77, random.Random(seed)) for seed in range(60)]
    sentences = {"The roof is red.", "Ada owns a kite.", "It is blue.", "The sea lay very still."}
    assert {*told} <= {whole, *sentences}
    assert 15 < told.count(whole) < 45
    assert short_text("", tokenizer, 77, random.Random(0)) == short_text("", tokenizer, 77, random.Random(1)) == ""
