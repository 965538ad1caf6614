"""Two sets of phrases that share nothing, and training that sees one of them only."""

import random
from dataclasses import fields
from pathlib import Path

import pytest

import longclip_diffusers
from longclip_diffusers import load_tokenizer
from longclip_diffusers.storybook import narrative
from longclip_diffusers.storybook.phrases import TRAINING, UNSEEN, with_article
from longclip_diffusers.storybook.scene import draw_scene
from longclip_diffusers.storybook.slots import SLOTS
from longclip_diffusers.storybook.telling import Teller
from longclip_diffusers.training.data.storybook import StorybookData
from longclip_diffusers.training.miniature.texts import CompactVocabulary, base_caption

PARTS = ("openings", "shared", "introductions", "owned", "mentions", "pronouns")


def patterns(phrases):
    told = [pattern for part in PARTS for pattern in getattr(phrases, part)]
    return [pattern.lower() for pattern in [*told, *(each for group in phrases.direct.values() for each in group)]]


def test_no_sentence_pattern_is_in_both_sets():
    assert not {*patterns(TRAINING)} & {*patterns(UNSEEN)}


def test_no_part_of_the_story_is_in_both_sets():
    for part in fields(narrative.Prose):
        assert not {*getattr(narrative.TRAINING, part.name)} & {*getattr(narrative.UNSEEN, part.name)}


@pytest.mark.parametrize("phrases", [TRAINING, UNSEEN], ids=["training", "unseen"])
def test_every_slot_can_be_told_and_the_word_is_in_it(phrases):
    for slot in SLOTS:
        assert phrases.of(slot)
        assert all(
            any(f"{{{each}}}" in pattern.lower() for each in ("word", "a_word", "several"))
            for pattern in phrases.of(slot)
        )


@pytest.mark.parametrize("unseen", [False, True])
def test_story_comes_from_its_own_set(unseen):
    own, foreign = (narrative.UNSEEN, narrative.TRAINING) if unseen else (narrative.TRAINING, narrative.UNSEEN)
    told = [narrative.narrate(random.Random(seed), unseen=unseen) for seed in range(200)]
    assert any(deed in text for text in told for deed in own.deeds)
    assert any(remark in told for remark in own.remarks)
    assert not any(part in text for text in told for part in (*foreign.deeds, *foreign.remarks))


def test_training_draws_no_unseen_phrase(monkeypatch):
    seen, begin = [], Teller.__init__

    def spy(self, scene, rng, phrases):
        seen.append(phrases)
        begin(self, scene, rng, phrases)

    monkeypatch.setattr(Teller, "__init__", spy)
    monkeypatch.setattr(CompactVocabulary, "CAPTIONS", 3)
    rng = random.Random(0)
    base_caption(draw_scene(rng), rng)
    CompactVocabulary(load_tokenizer())
    for data in (StorybookData(), StorybookData().held_out(8)):
        for index in range(8):
            data.texts(index)
    assert len(seen) >= 1 + 3 + 2 * 2 * 8
    assert all(phrases is TRAINING for phrases in seen)


def test_no_module_of_the_training_names_the_unseen_phrases():
    modules = sorted((Path(longclip_diffusers.__file__).parent / "training").rglob("*.py"))
    assert len(modules) > 30
    assert not [path.name for path in modules if "UNSEEN" in path.read_text() or "unseen=" in path.read_text()]


def test_articles():
    assert [with_article(word) for word in ("red", "orange")] == ["a red", "an orange"]
