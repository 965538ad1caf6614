"""What is written says what is painted, by itself or by reference, in captions of the length they promise."""

import random

import pytest

from longclip_diffusers import load_tokenizer
from longclip_diffusers.sentences import split_sentences
from longclip_diffusers.storybook.captions import (
    CROWDED,
    DETAILS,
    Shares,
    chapter,
    long_caption,
    num_tokens,
    sentence_ids,
    short_caption,
)
from longclip_diffusers.storybook.phrases import OWNERS, TRAINING, UNSEEN
from longclip_diffusers.storybook.scene import draw_scene
from longclip_diffusers.storybook.slots import OPENING_SLOTS, SLOT_INDEX, SLOTS

WRITERS = (short_caption, long_caption, chapter)
both_phrases = pytest.mark.parametrize("phrases", [TRAINING, UNSEEN], ids=["training", "unseen"])
every_writer = pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)


def captions(write, phrases, count=60, seed=0):
    """Pairs of scene and caption."""
    for index in range(count):
        rng = random.Random(f"{seed}/{index}")
        scene = draw_scene(rng)
        yield scene, write(scene, rng, phrases=phrases)


def references(caption):
    """Sentences that lean on an earlier one, with it and with those between."""
    for index, sentence in enumerate(caption.sentences):
        if (start := sentence.antecedent) is not None:
            assert start < index
            yield sentence, caption.sentences[start], caption.sentences[start + 1 : index]


@both_phrases
def test_captions_have_their_length(phrases):
    for write, fewest, most in ((short_caption, 5, 75), (long_caption, 190, 245)):
        for _, caption in captions(write, phrases, 150):
            assert fewest <= num_tokens(str(caption)) <= most


@both_phrases
def test_long_captions_mostly_fill_their_room(phrases):
    lengths = [num_tokens(str(caption)) for _, caption in captions(long_caption, phrases)]
    assert sum(length >= 215 for length in lengths) > len(lengths) / 2


@both_phrases
@pytest.mark.parametrize("length", [600, 1000, 2000])
def test_a_chapter_is_about_as_long_as_asked(phrases, length):
    for index in range(8):
        rng = random.Random(index)
        caption = chapter(draw_scene(rng), rng, length=length, phrases=phrases)
        assert length <= num_tokens(str(caption)) <= length + 40  # the last sentence of story


@both_phrases
def test_a_chapter_of_no_given_length_has_600_to_2000_tokens(phrases):
    lengths = [num_tokens(str(caption)) for _, caption in captions(chapter, phrases, 40)]
    assert min(lengths) >= 600
    assert max(lengths) <= 2040
    assert max(lengths) - min(lengths) > 800


@every_writer
@both_phrases
def test_tokens_of_sentences_sum_to_those_of_the_text(write, phrases):
    tokenizer = load_tokenizer()
    for _, caption in captions(write, phrases, 10):
        whole = tokenizer(str(caption), add_special_tokens=False, truncation=False, verbose=False).input_ids
        assert sum(num_tokens(sentence.text) for sentence in caption.sentences) == len(whole)


@every_writer
@both_phrases
def test_a_sentence_says_its_slots_word_unless_it_shares_a_colour(write, phrases):
    for scene, caption in captions(write, phrases):
        for sentence in caption.sentences:
            antecedent = None if sentence.antecedent is None else caption.sentences[sentence.antecedent]
            for name in sentence.slots:
                if antecedent is not None and antecedent.slots:
                    assert scene[name] == scene[sentence.subject]
                    assert sentence.subject in antecedent.slots
                else:
                    assert scene[name] in sentence.text.lower()


@every_writer
@both_phrases
def test_sentences_ids_joined_are_those_of_the_whole_text(write, phrases):
    tokenizer = load_tokenizer()
    for _, caption in captions(write, phrases, 20):
        ids = [token for sentence in caption.sentences for token in sentence_ids(sentence.text)]
        assert ids == tokenizer(str(caption), add_special_tokens=False).input_ids


@every_writer
@both_phrases
def test_nothing_is_told_twice_and_the_opening_comes_first_alone(write, phrases):
    for _, caption in captions(write, phrases):
        told = [name for sentence in caption.sentences for name in sentence.slots]
        assert len(told) == len(set(told))
        assert caption.sentences[0].slots == OPENING_SLOTS
        assert not {*OPENING_SLOTS} & {*told[len(OPENING_SLOTS) :]}


@both_phrases
def test_a_chapter_tells_every_slot(phrases):
    for _, caption in captions(chapter, phrases, 20):
        assert {name for sentence in caption.sentences for name in sentence.slots} == {slot.name for slot in SLOTS}


@pytest.mark.parametrize("write", [long_caption, chapter], ids=lambda write: write.__name__)
@both_phrases
def test_every_kind_of_reference_leans_on_what_it_needs(write, phrases):
    kinds = dict.fromkeys(("shared", "owner", "pronoun"), 0)
    for scene, caption in captions(write, phrases, 100):
        for sentence, antecedent, between in references(caption):
            (told,) = sentence.slots
            if antecedent.slots:
                kinds["shared"] += 1
                (lender,) = antecedent.slots
                assert sentence.subject == lender
                assert scene[told] == scene[lender] and scene[lender] in antecedent.text.lower()
                assert antecedent.antecedent is None  # one step, not a chain
                assert any(sentence.cue.endswith(noun) for noun in SLOTS[SLOT_INDEX[lender]].nouns)
                assert sentence.text.startswith(sentence.cue)
                continue
            assert sentence.subject == antecedent.subject == told
            assert any(noun in antecedent.text.lower() for noun in SLOTS[SLOT_INDEX[told]].nouns)
            assert not any(word in antecedent.text.lower().split() for word in SLOTS[SLOT_INDEX[told]].words)
            if sentence.cue:
                kinds["owner"] += 1
                (owner,) = [name for name in OWNERS if name in sentence.text]
                assert [each for each in caption.sentences if owner in each.text] == [antecedent, sentence]
            else:
                kinds["pronoun"] += 1
                assert not any(each.slots or each.subject for each in between)
    assert min(kinds.values()) > 20


@both_phrases
def test_references_of_long_captions_are_near_and_far(phrases):
    near = far = 0
    for _, caption in captions(long_caption, phrases, 100):
        for index, sentence in enumerate(caption.sentences):
            if sentence.antecedent is not None:
                span = caption.sentences[sentence.antecedent : index + 1]
                if sum(num_tokens(each.text) for each in span) > 75:
                    far += 1
                else:
                    near += 1
    assert far > 100 and near > 100


def test_short_captions_tell_up_to_four_details_directly():
    for _, caption in captions(short_caption, TRAINING):
        assert len(caption.sentences) <= 5
        assert all(sentence.antecedent is None for sentence in caption.sentences)


def test_details_are_the_slots_outside_the_opening():
    assert [slot.name for slot in DETAILS] == [slot.name for slot in SLOTS if slot.name not in OPENING_SLOTS]


@every_writer
def test_a_seed_gives_one_caption(write):
    scene = draw_scene(random.Random(1))
    first, second, other = (write(scene, random.Random(seed)) for seed in (2, 2, 3))
    assert first == second
    assert first != other


@every_writer
@both_phrases
def test_a_text_is_split_into_its_sentences(write, phrases):
    # Windows are cut there, and a detail or a reference counts by its own sentence.
    num_merged = num_sentences = 0
    for _, caption in captions(write, phrases, 40):
        found, told = split_sentences(str(caption)), [sentence.text for sentence in caption.sentences]
        num_sentences += len(told)
        if phrases is TRAINING:  # here a question may bring its answer, and a random word look like an abbreviation
            pieces = [piece for text in told for piece in split_sentences(text)]
            num_merged += len({*pieces} - {*found})
        else:
            assert found == told
    assert num_merged <= num_sentences / 200


@pytest.mark.parametrize("write", [long_caption, chapter], ids=lambda write: write.__name__)
def test_crowded_texts_hold_several_owners_and_pronouns(write):
    told = {}
    for name in ("plain", "crowded"):
        shares = CROWDED if name == "crowded" else Shares()
        texts = [write(draw_scene(random.Random(seed)), random.Random(seed), shares=shares) for seed in range(60)]
        kinds = [
            [bool(sentence.cue) for sentence, antecedent, _ in references(text) if not antecedent.slots]
            for text in texts
        ]
        told[name] = (sum(map(sum, kinds)), sum(len(kind) - sum(kind) for kind in kinds))
    (owners, pronouns), (more_owners, more_pronouns) = told["plain"], told["crowded"]
    assert more_owners > 2 * owners > 0
    assert more_pronouns > 1.2 * pronouns > 0
