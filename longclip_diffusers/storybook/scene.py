"""A scene: one colour for every slot and a small shift for every movable thing, drawn from a seed."""

import random
from dataclasses import dataclass

from .slots import SLOTS, Rgb

__all__ = ["MAX_SHIFT", "Scene", "draw_scene", "recolour"]

MAX_SHIFT = 2  # pixels, each way


@dataclass(frozen=True)
class Scene:
    """Colour word and shift (dx, dy in pixels, each at most `MAX_SHIFT`) of every slot, in the order of `SLOTS`."""

    colours: tuple[str, ...]
    shifts: tuple[tuple[int, int], ...]

    def __getitem__(self, slot: str) -> str:
        return self.colours[_INDEX[slot]]

    def shift(self, slot: str) -> tuple[int, int]:
        """How far the thing stands from its usual place, in pixels."""
        return self.shifts[_INDEX[slot]]

    def paint(self, slot: str) -> Rgb:
        """The RGB paint of a slot, 0 to 255."""
        return SLOTS[_INDEX[slot]].colours[self[slot]]


_INDEX = {slot.name: index for index, slot in enumerate(SLOTS)}


def draw_scene(rng: random.Random) -> Scene:
    """A scene in which every slot's colour is drawn evenly and by itself, so that nothing can be guessed."""
    colours = tuple(rng.choice(slot.words) for slot in SLOTS)
    shifts = tuple((rng.randint(-MAX_SHIFT, MAX_SHIFT), rng.randint(-MAX_SHIFT, MAX_SHIFT)) for _ in SLOTS)
    return Scene(colours, shifts)


def recolour(scene: Scene, rng: random.Random, num_slots: int) -> Scene:
    """The same scene with another colour in `num_slots` slots drawn at random."""
    colours = list(scene.colours)
    for index in rng.sample(range(len(SLOTS)), num_slots):
        colours[index] = rng.choice([word for word in SLOTS[index].words if word != colours[index]])
    return Scene(tuple(colours), scene.shifts)
