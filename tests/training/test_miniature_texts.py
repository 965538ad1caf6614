"""What the base model's captions say is known where, and captions that do nothing but tell owners apart."""

import random

import pytest
import torch

from longclip_diffusers import load_tokenizer
from longclip_diffusers.storybook.captions import Shares, compose, finish, sentence_ids
from longclip_diffusers.storybook.phrases import OWNERS, TRAINING
from longclip_diffusers.storybook.scene import draw_scene
from longclip_diffusers.storybook.slots import SLOT_INDEX, SLOTS
from longclip_diffusers.training.miniature.texts import (
    CUE,
    DIRECT,
    INTRODUCTION,
    REFERENCE,
    batch_captions,
    owners_caption,
)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(max_length=77)


def owned_captions(count=60):
    for seed in range(count):
        rng = random.Random(f"owners/{seed}")
        scene = draw_scene(rng)
        yield scene, owners_caption(scene, rng)


def test_owners_captions_introduce_two_to_four_things_and_then_tell_each():
    counts, orders = set(), set()
    for scene, caption in owned_captions():
        half = len(caption.sentences) // 2
        introductions, told = caption.sentences[:half], caption.sentences[half:]
        counts.add(half)
        owners = [sentence.owner for sentence in introductions]
        assert {*owners} <= {*OWNERS}
        assert len({*owners}) == half
        assert not any(sentence.slots for sentence in introductions)
        assert {sentence.antecedent for sentence in told} == {*range(half)}
        for sentence in told:
            introduction = introductions[sentence.antecedent]
            assert sentence.slots == (introduction.subject,)
            assert introduction.owner in sentence.cue
            assert scene[introduction.subject] in sentence.text.lower()
        orders.add([sentence.antecedent for sentence in told] == [*range(half)])
    assert counts == {2, 3, 4}
    assert orders == {True, False}


def test_an_introduction_is_known_at_its_end_by_thing_and_owner(tokenizer):
    for scene, caption in owned_captions(10):
        batch = batch_captions([caption], [scene], tokenizer, length=77)
        introduced = batch.only(batch.places == INTRODUCTION)
        position, expected = 0, []
        for sentence in caption.sentences:
            position += len(sentence_ids(sentence.text))
            if sentence.owner and position < 76:
                expected.append((position, SLOT_INDEX[sentence.subject], OWNERS.index(sentence.owner)))
        found = torch.stack([introduced.positions, introduced.slots, introduced.words]).T.tolist()
        assert [tuple(fact) for fact in found] == expected
        assert expected


def test_told_is_what_a_text_tells_by_itself_or_by_reference(tokenizer):
    rng = random.Random(0)
    scene = draw_scene(rng)
    chosen = [slot for slot in SLOTS if slot.trait == "colour"][:6]
    teller, passages = compose(scene, chosen, rng, phrases=TRAINING, shares=Shares(0.7, 0.4, 0.4))
    caption = finish([teller.opening(), *(draft for passage in passages for draft in passage)])
    batch = batch_captions([caption], [scene], tokenizer, length=400)
    assert {*batch.places.tolist()} == {DIRECT, CUE, REFERENCE, INTRODUCTION}
    told = batch.told()
    expected = [SLOT_INDEX[name] for sentence in caption.sentences for name in sentence.slots]
    assert told.slots.tolist() == expected
    assert told.words.tolist() == [scene.index(SLOTS[slot].name) for slot in expected]
