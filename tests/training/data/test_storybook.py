"""The storybook as data: long texts fit, half of them begin chapters, held-out ones are long captions."""

import pytest

from longclip_diffusers.storybook.captions import num_tokens
from longclip_diffusers.storybook.phrases import UNSEEN
from longclip_diffusers.storybook.telling import Teller
from longclip_diffusers.training.data import storybook
from longclip_diffusers.training.data.storybook import StorybookData


def spied(monkeypatch, name):
    """Counts the calls of one of the module's functions."""
    calls, plain = [], getattr(storybook, name)

    def spy(*arguments, **options):
        calls.append(options)
        return plain(*arguments, **options)

    monkeypatch.setattr(storybook, name, spy)
    return calls


def test_half_of_the_long_texts_begin_a_chapter_and_all_fit(monkeypatch):
    chapters, captions = spied(monkeypatch, "chapter"), spied(monkeypatch, "long_caption")
    data = StorybookData(seed=3)
    lengths = [num_tokens(data.texts(index)[0]) for index in range(60)]
    assert len(chapters) + len(captions) == 60
    assert 18 <= len(chapters) <= 42  # three standard deviations
    assert min(lengths) >= 190 and max(lengths) <= 245


def test_held_out_texts_are_long_captions_in_the_phrases_asked_for(monkeypatch):
    chapters, phrases, begin = spied(monkeypatch, "chapter"), [], Teller.__init__

    def spy(self, scene, rng, told_in):
        phrases.append(told_in)
        begin(self, scene, rng, told_in)

    monkeypatch.setattr(Teller, "__init__", spy)
    data = StorybookData(seed=3).held_out(10, phrases=UNSEEN)
    for index in range(10):
        data.texts(index)
    assert not chapters
    assert len(phrases) == 20 and all(each is UNSEEN for each in phrases)


@pytest.mark.parametrize("index", [0, 5])
def test_neighbours_differ_in_at_most_four_slots(index):
    data = StorybookData()
    first, *others = (data.scene(4 * index + member) for member in range(4))
    for other in others:
        assert 0 < sum(mine != theirs for mine, theirs in zip(first.words, other.words, strict=True)) <= 4
    far = data.scene(4 * (index + 1))
    assert sum(mine != theirs for mine, theirs in zip(first.words, far.words, strict=True)) > 10
