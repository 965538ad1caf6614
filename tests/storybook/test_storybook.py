"""The picture world: what is painted can be read back, and what is written says what is painted."""

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from longclip_diffusers import LongClipError, load_tokenizer
from longclip_diffusers.storybook.captions import chapter, long_caption, short_caption
from longclip_diffusers.storybook.checker import read_picture
from longclip_diffusers.storybook.render import render
from longclip_diffusers.storybook.scene import draw_scene, vary
from longclip_diffusers.storybook.slots import OPENING_SLOTS, SLOTS


def scenes(count, seed=0):
    rng = random.Random(seed)
    return [draw_scene(rng) for _ in range(count)]


def test_every_slot_of_a_render_is_read_back():
    for scene in scenes(300):
        assert read_picture(render(scene)) == {slot.name: scene[slot.name] for slot in SLOTS}


@pytest.mark.parametrize("slot", SLOTS, ids=lambda slot: slot.name)
def test_the_checker_notices_a_corrupted_slot_and_only_that(slot):
    scene = scenes(1, seed=slot.name)[0]
    wrong = next(word for word in slot.words if word != scene[slot.name])
    picture = render(scene)
    left, top, right, bottom = slot.core
    ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), fill=slot.colours[wrong])
    assert read_picture(picture) == {other.name: scene[other.name] for other in SLOTS} | {slot.name: wrong}


def test_a_blank_picture_is_read_at_chance():
    shown = [
        read_picture(Image.new("RGB", (128, 128), "grey"))[slot.name] == scene[slot.name]
        for scene in scenes(60)
        for slot in SLOTS
    ]
    assert np.mean(shown) == pytest.approx(1 / 6, abs=0.04)  # three standard errors of 1,320 readings


def test_another_size_is_refused():
    with pytest.raises(LongClipError, match="reads 128x128 pictures, got 64x32"):
        read_picture(Image.new("RGB", (64, 32)))


def test_a_seed_gives_one_scene_and_a_scene_one_picture():
    first, second = scenes(2, seed=5), scenes(2, seed=5)
    assert first == second
    assert first[0] != first[1]
    assert np.array_equal(np.asarray(render(first[0])), np.asarray(render(second[0])))


def test_slots_have_four_to_eight_values_and_cores_inside_the_picture():
    assert len(SLOTS) >= 20
    for slot in SLOTS:
        left, top, right, bottom = slot.core
        assert 4 <= len(slot.colours) <= 8
        assert 0 <= left < right <= 128
        assert 0 <= top < bottom <= 128


@pytest.mark.parametrize(
    ("write", "fewest", "most"), [(short_caption, 5, 77), (long_caption, 180, 245), (chapter, 600, 2000)]
)
def test_captions_have_their_length_and_tell_the_truth(write, fewest, most):
    tokenizer, rng = load_tokenizer(), random.Random(3)
    for scene in scenes(100):
        caption = write(scene, rng)
        assert fewest <= len(tokenizer(str(caption), verbose=False).input_ids) <= most
        for sentence in caption.sentences:
            for name in sentence.slots:
                assert scene[name] in sentence.text


@pytest.mark.parametrize("write", [long_caption, chapter])
def test_a_long_text_tells_every_slot_once(write):
    caption = write(scenes(1)[0], random.Random(0))
    told = [name for sentence in caption.sentences for name in sentence.slots]
    assert sorted(told) == sorted(slot.name for slot in SLOTS)
    assert caption.sentences[0].slots == OPENING_SLOTS


def test_a_varyed_scene_differs_in_exactly_so_many_slots():
    scene = draw_scene(random.Random(0))
    other = vary(scene, random.Random(1), 2)
    assert sum(mine != theirs for mine, theirs in zip(scene.colours, other.colours, strict=True)) == 2
    assert other.shifts == scene.shifts
