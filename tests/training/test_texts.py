"""Texts as the anchor reads them: every one fits, some are context windows, some have words replaced."""

import random
import re

import pytest

from longclip_diffusers import load_tokenizer
from longclip_diffusers.sentences import sentence_ends
from longclip_diffusers.storybook.captions import chapter
from longclip_diffusers.storybook.scene import draw_scene
from longclip_diffusers.training.texts import MAX_REPLACED, fitting_text, replace_words
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


def test_replacing_words_keeps_the_sentences_and_what_is_not_a_word(text, tokenizer):
    changed = replace_words(text, tokenizer, random.Random(1))
    assert changed == replace_words(text, tokenizer, random.Random(1)) != text
    assert re.sub(r"\w+", "", changed) == re.sub(r"\w+", "", text)
    assert len(list(sentence_ends(changed))) == len(list(sentence_ends(text)))


def test_no_more_than_half_of_the_words_are_replaced_and_often_fewer(text, tokenizer):
    words = re.findall(r"\w+", text)
    shares = []
    for seed in range(20):
        changed = re.findall(r"\w+", replace_words(text, tokenizer, random.Random(seed)))
        shares.append(sum(one != other for one, other in zip(words, changed, strict=True)) / len(words))
    assert min(shares) < 0.15
    assert 0.35 < max(shares) < MAX_REPLACED + 0.07  # two standard errors of some 450 words
