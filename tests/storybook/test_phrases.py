"""Three sets of phrases that share nothing, and training that sees one of them only."""

import random
from dataclasses import fields
from itertools import combinations
from pathlib import Path

import pytest

import longclip_diffusers
from longclip_diffusers import load_tokenizer
from longclip_diffusers.storybook import narrative
from longclip_diffusers.storybook.phrases import DEVELOPMENT, TRAINING, UNSEEN, with_article
from longclip_diffusers.storybook.scene import draw_scene
from longclip_diffusers.storybook.slots import SLOTS
from longclip_diffusers.storybook.telling import Teller
from longclip_diffusers.training.data.storybook import StorybookData
from longclip_diffusers.training.miniature.texts import CompactVocabulary, base_caption, owners_caption

PARTS = ("openings", "shared", "introductions", "owned", "mentions", "pronouns")
SETS = (TRAINING, DEVELOPMENT, UNSEEN)
# What each kind of pattern cannot do without; a bar stands between equals.
PLACES = {
    "openings": ("{sky} sky|{sky_word}", "{hills}", "{meadow}", "{sea}"),
    "shared": ("{noun}", "{other}"),
    "introductions": ("{noun}", "{owner}"),
    "owned": ("{owner}", "{word}|{Word}|{a_word}|{A_word}"),
    "mentions": ("{noun}",),
    "pronouns": ("{word}|{Word}|{a_word}|{A_word}",),
}
every_set = pytest.mark.parametrize("phrases", SETS, ids=["training", "development", "unseen"])


def patterns(phrases):
    told = [pattern for part in PARTS for pattern in getattr(phrases, part)]
    return [pattern.lower() for pattern in [*told, *(each for group in phrases.direct.values() for each in group)]]


def test_no_sentence_pattern_is_in_two_sets():
    for one, other in combinations(map(patterns, SETS), 2):
        assert not {*one} & {*other}


def test_no_part_of_the_story_is_in_two_sets():
    for part in fields(narrative.Prose):
        for one, other in combinations([getattr(phrases.prose, part.name) for phrases in SETS], 2):
            assert not {*one} & {*other}


@every_set
def test_every_slot_can_be_told_and_the_word_is_in_it(phrases):
    for slot in SLOTS:
        assert phrases.of(slot)
        assert all(
            any(f"{{{each}}}" in pattern.lower() for each in ("word", "a_word", "several"))
            for pattern in phrases.of(slot)
        )


@every_set
def test_patterns_hold_the_places_of_their_kind(phrases):
    for kind, places in PLACES.items():
        for pattern in getattr(phrases, kind):
            assert all(any(each in pattern for each in place.split("|")) for place in places), pattern
    for pattern in (*phrases.direct["colour"], *phrases.direct["switch"]):
        assert "{noun}" in pattern


@every_set
def test_story_comes_from_its_own_set(phrases):
    foreign = [each.prose for each in SETS if each is not phrases]
    told = [narrative.narrate(random.Random(seed), phrases.prose) for seed in range(200)]
    assert any(deed in text for text in told for deed in phrases.prose.deeds)
    assert any(remark in told for remark in phrases.prose.remarks)
    assert not any(part in text for text in told for prose in foreign for part in (*prose.deeds, *prose.remarks))


@every_set
def test_a_teller_tells_stories_of_its_phrases(phrases):
    rng = random.Random(1)
    teller = Teller(draw_scene(rng), rng, phrases)
    told = {teller.story().text for _ in range(100)}
    assert told & {*phrases.prose.remarks}
    assert not told & {remark for each in SETS if each is not phrases for remark in each.prose.remarks}


def test_training_draws_no_unseen_phrase(monkeypatch):
    seen, begin = [], Teller.__init__

    def spy(self, scene, rng, phrases):
        seen.append(phrases)
        begin(self, scene, rng, phrases)

    monkeypatch.setattr(Teller, "__init__", spy)
    monkeypatch.setattr(CompactVocabulary, "CAPTIONS", 3)
    rng = random.Random(0)
    base_caption(draw_scene(rng), rng)
    owners_caption(draw_scene(rng), rng)
    CompactVocabulary(load_tokenizer())
    for data in (StorybookData(), StorybookData().held_out(8)):
        for index in range(8):
            data.texts(index)
    assert len(seen) >= 2 + 3 + 2 * 2 * 8
    assert all(phrases is TRAINING for phrases in seen)


def test_no_module_of_the_training_names_phrases_that_are_not_its_own():
    modules = sorted((Path(longclip_diffusers.__file__).parent / "training").rglob("*.py"))
    assert len(modules) > 30
    names = ("UNSEEN", "DEVELOPMENT")
    assert not [path.name for path in modules if any(name in path.read_text() for name in names)]


def test_articles():
    assert [with_article(word) for word in ("red", "orange")] == ["a red", "an orange"]
