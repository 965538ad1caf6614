"""Every chapter in samples/ tells what the storybook can draw: each slot once, three of them by reference."""

import re
from pathlib import Path

import pytest

from longclip_diffusers import load_tokenizer, plan_windows
from longclip_diffusers.sentences import split_sentences
from longclip_diffusers.storybook.phrases import OWNERS
from longclip_diffusers.storybook.slots import OPENING_SLOTS, SLOTS

CHAPTERS = sorted((Path(__file__).parent.parent / "samples" / "chapters").glob("*.txt"))
DETAILS = [slot for slot in SLOTS if slot.name not in OPENING_SLOTS]
SAME_COLOUR = " has the same colour as the "

every_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)


def sentences(chapter):
    return split_sentences(chapter.read_text(encoding="utf-8"))


def words(sentence):
    return re.findall(r"[a-z]+", sentence.lower())


def named(sentence):
    """The slots that a sentence is about: a colour's noun stands there with its place."""
    return [slot for slot in DETAILS if is_named(slot, sentence)]


def is_named(slot, sentence):
    if slot.trait == "kind" and slot.place in sentence:  # "A dog sits in the corner."
        return True
    noun = any(re.search(rf"\b{noun}s?\b", sentence) for noun in slot.nouns)
    return noun and (slot.trait != "colour" or slot.place in sentence.lower())


def told(sentence):
    """The slots that a sentence names together with one of their words."""
    return [slot.name for slot in named(sentence) if len({*words(sentence)} & {*slot.words}) == 1]


def told_by_owner(text):
    """Slots named with an owner in one sentence, whose word stands with the same owner in a later one."""
    found = []
    for index, sentence in enumerate(text):
        if match := re.fullmatch(r"What belongs to (\w+) is ([a-z]+)\.", sentence):
            owner, word = match.groups()
            assert owner in OWNERS
            (introduction,) = (each for each in text[:index] if owner in each)
            found += [slot.name for slot in named(introduction) if word in slot.words]
    return found


def told_by_pronoun(text):
    """Slots named in a sentence without a word, with nothing but story until `It is ...`."""
    found = []
    for index, sentence in enumerate(text):
        if re.fullmatch(r"It is [a-z]+\.", sentence):
            before = next(each for each in reversed(text[:index]) if named(each))
            found += [slot.name for slot in named(before) if not told(before) and words(sentence)[-1] in slot.words]
    return found


def told_by_colour(text):
    """Slots that share the colour of another one, which an earlier sentence tells."""
    return [
        slot.name
        for index, sentence in enumerate(text)
        if SAME_COLOUR in sentence
        for slot in named(sentence.partition(SAME_COLOUR)[0])
        for other in DETAILS
        if sentence.rstrip(".").endswith(other.nouns)
        and other.name in [name for each in text[:index] for name in told(each)]
    ]


def test_there_are_three_chapters():
    assert len(CHAPTERS) == 3


@every_chapter
def test_a_chapter_has_600_to_1500_tokens(chapter):
    assert 600 <= plan_windows(chapter.read_text(encoding="utf-8"), load_tokenizer()).num_tokens <= 1500


@every_chapter
def test_a_chapter_tells_every_slot_once(chapter):
    text = sentences(chapter)
    directly = [name for sentence in text for name in told(sentence)]
    referred = [told_by_colour(text), told_by_owner(text), told_by_pronoun(text)]
    assert [len(names) for names in referred] == [1, 1, 1]
    assert sorted(directly + [name for names in referred for name in names]) == sorted(slot.name for slot in DETAILS)


@every_chapter
def test_the_summary_comes_first_and_the_last_sentence_tells_a_slot(chapter):
    first, *_, last = sentences(chapter)
    assert all(re.search(rf"\b{name}\b", first) for name in OPENING_SLOTS)
    assert len(told(last)) == 1
