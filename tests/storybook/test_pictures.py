"""The picture world: what is painted can be read back, slot by slot."""

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from longclip_diffusers import LongClipError
from longclip_diffusers.storybook.checker import read_picture
from longclip_diffusers.storybook.render import render
from longclip_diffusers.storybook.scene import MAX_SHIFT, draw_scene, vary
from longclip_diffusers.storybook.slots import SLOTS


def scenes(count, seed=0):
    rng = random.Random(seed)
    return [draw_scene(rng) for _ in range(count)]


def truth(scene):
    return {slot.name: scene[slot.name] for slot in SLOTS}


def paint_of(look, scene):
    return paint_of(scene.look(look)[0], scene) if isinstance(look, str) else look


def repaint(picture, slot, scene):
    """The slot's cores as `scene` has them, and whatever shows this slot behind itself."""
    draw = ImageDraw.Draw(picture)
    for other in SLOTS:
        for (left, top, right, bottom), look in zip(other.cores, scene.look(other.name), strict=True):
            if other is slot or look == slot.name:
                draw.rectangle((left, top, right - 1, bottom - 1), fill=paint_of(look, scene))


def with_word(scene, slot, word):
    words = tuple(word if each is slot else scene[each.name] for each in SLOTS)
    return type(scene)(words, scene.shifts)


def test_every_slot_of_a_render_is_read_back():
    for scene in scenes(300):
        assert read_picture(render(scene)) == truth(scene)


@pytest.mark.parametrize("slot", SLOTS, ids=lambda slot: slot.name)
def test_the_checker_notices_a_corrupted_slot_and_only_that(slot):
    for scene in scenes(3, seed=slot.name):
        for word in slot.words:
            picture = render(scene)
            repaint(picture, slot, wrong := with_word(scene, slot, word))
            assert read_picture(picture) == truth(wrong)


@pytest.mark.parametrize("trait", ["colour", "kind", "count", "switch"])
def test_every_trait_has_slots_that_a_picture_shows(trait):
    slots = [slot for slot in SLOTS if slot.trait == trait]
    assert slots
    scene = scenes(1)[0]
    for slot in slots:
        pictures = {render(with_word(scene, slot, word)).tobytes() for word in slot.words}
        assert len(pictures) == len(slot.words) >= 2


def test_a_blank_picture_is_read_at_chance():
    shown = [
        read_picture(Image.new("RGB", (128, 128), "grey"))[slot.name] == scene[slot.name]
        for scene in scenes(60)
        for slot in SLOTS
    ]
    chance = np.mean([1 / len(slot.words) for slot in SLOTS])
    assert np.mean(shown) == pytest.approx(chance, abs=0.035)  # three standard errors of 1,500 readings


def test_another_size_is_refused():
    with pytest.raises(LongClipError, match="reads 128x128 pictures, got 64x32"):
        read_picture(Image.new("RGB", (64, 32)))


def test_a_seed_gives_one_scene_and_a_scene_one_picture():
    first, second = scenes(2, seed=5), scenes(2, seed=5)
    assert first == second
    assert first[0] != first[1]
    assert np.array_equal(np.asarray(render(first[0])), np.asarray(render(second[0])))


def test_slots_are_many_and_their_cores_lie_inside_the_picture_apart_from_each_other():
    assert len(SLOTS) >= 24
    taken = np.zeros((128, 128), dtype=int)
    for slot in SLOTS:
        assert all(len(looks) == len(slot.cores) for looks in slot.looks.values())
        for left, top, right, bottom in slot.cores:
            assert 0 <= left < right <= 128
            assert 0 <= top < bottom <= 128
            taken[top:bottom, left:right] += 1
    assert taken.max() == 1


def test_words_and_shifts_are_drawn_evenly():
    drawn = scenes(600)
    for slot in SLOTS:
        counts = [sum(scene[slot.name] == word for scene in drawn) for word in slot.words]
        assert min(counts) > 600 / len(slot.words) * 0.6  # six standard deviations below, for six words
    assert {shift for scene in drawn for pair in scene.shifts for shift in pair} == {*range(-MAX_SHIFT, MAX_SHIFT + 1)}


@pytest.mark.parametrize("num_slots", [1, 2, len(SLOTS)])
def test_a_varied_scene_differs_in_exactly_so_many_slots(num_slots):
    scene = draw_scene(random.Random(0))
    other = vary(scene, random.Random(1), num_slots)
    assert sum(mine != theirs for mine, theirs in zip(scene.words, other.words, strict=True)) == num_slots
    assert all(word in slot.words for word, slot in zip(other.words, SLOTS, strict=True))
    assert other.shifts == scene.shifts
