"""Where the UNet's last rounds look: the cells of what a caption tells, and a reader of latents."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from longclip_diffusers import load_tokenizer
from longclip_diffusers.storybook.captions import Caption, finish
from longclip_diffusers.storybook.phrases import TRAINING
from longclip_diffusers.storybook.render import render
from longclip_diffusers.storybook.scene import draw_scene
from longclip_diffusers.storybook.slots import MAX_WORDS, SLOT_INDEX, SLOTS
from longclip_diffusers.storybook.telling import Teller
from longclip_diffusers.training.miniature.latents import (
    LATENT_READER_SCHEDULE,
    LATENT_SIZE,
    LatentReader,
    told_cells,
    train_latent_reader,
)
from longclip_diffusers.training.miniature.texts import REFERENCE, batch_captions

CELL = 128 // LATENT_SIZE


def cells_of(*captions, scene):
    batch = batch_captions(captions, [scene] * len(captions), load_tokenizer(max_length=77), length=77)
    told = batch.told()
    return told_cells(told, torch.where(told.places == REFERENCE, 3.0, 1.0))


@pytest.mark.parametrize(
    "slot", [slot for slot in SLOTS if slot.trait in ("colour", "kind")], ids=lambda slot: slot.name
)
def test_the_cells_of_a_told_thing_are_painted_anew_with_another_word(slot):
    rng = random.Random(slot.name)
    scene = draw_scene(rng)
    teller = Teller(scene, rng, TRAINING)
    draft = teller.opening() if slot.name in ("sky", "hills", "meadow", "sea") else teller.direct(slot)
    told, silent = cells_of(finish([draft]), Caption(()), scene=scene)
    assert not silent.any()
    words = list(scene.words)
    words[SLOT_INDEX[slot.name]] = next(word for word in slot.words if word != scene[slot.name])
    one, other = (np.asarray(render(each)).astype(int) for each in (scene, replace(scene, words=tuple(words))))
    changed = (one != other).any(axis=2).reshape(LATENT_SIZE, CELL, LATENT_SIZE, CELL).any(axis=(1, 3))
    assert changed[told.bool().numpy()].all() or draft.slots != (slot.name,)
    for left, top, right, bottom in slot.cores:
        assert told[top // CELL, left // CELL] == told[(bottom - 1) // CELL, (right - 1) // CELL] == 1


def test_a_thing_that_is_named_but_not_told_has_no_cells():
    rng = random.Random(0)
    scene = draw_scene(rng)
    mention, *_, told = Teller(scene, rng, TRAINING).by_pronoun(SLOTS[SLOT_INDEX["kite"]], 0)
    named, known = cells_of(finish([mention]), finish([mention, told]), scene=scene)
    assert not named.any()
    assert known.any()


def test_cells_have_the_largest_weight_of_what_is_seen_there():
    rng = random.Random(0)
    scene = draw_scene(rng)
    teller = Teller(scene, rng, TRAINING)
    opening, sentences = teller.opening(), teller.by_pronoun(SLOTS[SLOT_INDEX["kite"]], 0)
    summary, both = cells_of(finish([opening]), finish([opening, *sentences]), scene=scene)
    kite = cells_of(finish(sentences), scene=scene)[0]
    assert {*summary.unique().tolist()} == {0.0, 1.0}
    assert {*kite.unique().tolist()} == {0.0, 3.0}
    assert both.equal(torch.maximum(summary, kite))


def test_the_reader_learns_latents_and_names_no_word_that_a_slot_lacks(tmp_path):
    rng = random.Random(0)
    scenes = [draw_scene(rng) for _ in range(8)]
    latents = torch.randn(8, 12, LATENT_SIZE, LATENT_SIZE, generator=torch.Generator().manual_seed(0)).half()
    torch.manual_seed(0)
    reader = LatentReader()
    schedule = replace(LATENT_READER_SCHEDULE, steps=20, batch_size=16, warmup=5)
    steps = list(
        train_latent_reader(reader, scenes, latents, seed=0, checkpoints=tmp_path / "checkpoints", schedule=schedule)
    )
    assert len(steps) == 20
    logits = reader(latents.float())
    assert logits.shape == (8, len(SLOTS), MAX_WORDS)
    truth = torch.tensor([[scene.index(slot.name) for slot in SLOTS] for scene in scenes])
    assert logits.argmax(-1).equal(truth)
    for number, slot in enumerate(SLOTS):
        assert logits[:, number, len(slot.words) :].eq(-torch.inf).all()
