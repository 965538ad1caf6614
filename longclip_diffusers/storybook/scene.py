"""A scene: one word for every slot and a small shift for every movable thing, drawn from a seed."""

import random
from dataclasses import dataclass

from .slots import SLOT_INDEX, SLOTS, Look

__all__ = ["MAX_SHIFT", "Scene", "draw_scene", "vary"]

MAX_SHIFT = 2  # pixels, each way


@dataclass(frozen=True)
class Scene:
    """Word and shift (dx, dy in pixels, each at most `MAX_SHIFT`) of every slot, in the order of `SLOTS`."""

    words: tuple[str, ...]
    shifts: tuple[tuple[int, int], ...]

    def __getitem__(self, slot: str) -> str:
        return self.words[SLOT_INDEX[slot]]

    def index(self, slot: str) -> int:
        """Which of the slot's words it is, from 0."""
        return SLOTS[SLOT_INDEX[slot]].words.index(self[slot])

    def shift(self, slot: str) -> tuple[int, int]:
        """How far the thing stands from its usual place, in pixels."""
        return self.shifts[SLOT_INDEX[slot]]

    def look(self, slot: str) -> tuple[Look, ...]:
        """What each of the slot's cores shows."""
        return SLOTS[SLOT_INDEX[slot]].looks[self[slot]]


def draw_scene(rng: random.Random) -> Scene:
    """A scene in which every slot's word is drawn evenly and by itself, so that nothing can be guessed."""
    words = tuple(rng.choice(slot.words) for slot in SLOTS)
    shifts = tuple((rng.randint(-MAX_SHIFT, MAX_SHIFT), rng.randint(-MAX_SHIFT, MAX_SHIFT)) for _ in SLOTS)
    return Scene(words, shifts)


def vary(scene: Scene, rng: random.Random, num_slots: int) -> Scene:
    """The same scene with another word in `num_slots` slots drawn at random."""
    words = list(scene.words)
    for index in rng.sample(range(len(SLOTS)), num_slots):
        words[index] = rng.choice([word for word in SLOTS[index].words if word != words[index]])
    return Scene(tuple(words), scene.shifts)
