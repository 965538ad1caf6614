"""What a picture can differ in: twenty-five slots, each a colour, a kind, a count or a switch, at a known place.

Coordinates are pixels of the 128 x 128 picture. A slot's `cores` are boxes that hold only what the slot decides,
whatever the scene's shifts (`scene.MAX_SHIFT`) and whatever is painted over it; the checker reads there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["IS_WORD", "MAX_WORDS", "OPENING_SLOTS", "SLOTS", "SLOT_INDEX", "Box", "Look", "Rgb", "Slot"]

Rgb = tuple[int, int, int]
Box = tuple[int, int, int, int]
# What one core shows: a paint, or that of the slot behind it.
Look = Rgb | str
Trait = Literal["colour", "kind", "count", "switch"]

PAINT: dict[str, Rgb] = {
    "red": (206, 58, 50),
    "yellow": (246, 208, 74),
    "green": (72, 148, 78),
    "blue": (56, 110, 192),
    "purple": (128, 78, 164),
    "white": (245, 241, 230),
}
SKY: dict[str, Rgb] = {
    "blue": (150, 202, 240),
    "pink": (248, 186, 202),
    "orange": (250, 184, 112),
    "purple": (174, 146, 214),
    "yellow": (250, 234, 150),
    "grey": (160, 166, 174),
}
HILLS: dict[str, Rgb] = {
    "green": (92, 156, 88),
    "blue": (96, 138, 186),
    "purple": (132, 104, 158),
    "brown": (140, 104, 74),
    "orange": (222, 136, 66),
    "white": (236, 240, 244),
}
MEADOW: dict[str, Rgb] = {
    "green": (132, 186, 92),
    "yellow": (232, 212, 108),
    "brown": (166, 128, 88),
    "white": (240, 242, 240),
    "orange": (228, 154, 84),
    "purple": (176, 144, 192),
}
SEA: dict[str, Rgb] = {
    "blue": (44, 112, 206),
    "green": (58, 176, 128),
    "purple": (122, 76, 182),
    "grey": (140, 150, 160),
    "black": (46, 52, 72),
    "pink": (238, 130, 168),
}
ANIMALS: dict[str, Rgb] = {
    "cat": (236, 138, 52),
    "pig": (244, 160, 186),
    "sheep": (245, 241, 230),
    "dog": (146, 92, 50),
    "raven": (48, 46, 58),
    "mouse": (148, 152, 160),
}
FRUITS: dict[str, Rgb] = {
    "apples": (206, 58, 50),
    "lemons": (246, 208, 74),
    "pears": (120, 176, 70),
    "plums": (104, 60, 140),
    "eggs": (248, 244, 236),
    "oranges": (240, 140, 40),
}
CLOUD: Rgb = (252, 252, 252)
FLOWER: Rgb = (232, 52, 128)
LIT: Rgb = (255, 232, 96)
DARK: Rgb = (62, 60, 72)
SMOKE: Rgb = (224, 224, 226)


@dataclass(frozen=True)
class Slot:
    """One thing in the picture: what it is called, where it is, how each of its words looks, and where to read it.

    `looks` has for every word a `Look` for each of `cores`.
    """

    name: str
    trait: Trait
    nouns: tuple[str, ...]
    place: str
    looks: Mapping[str, tuple[Look, ...]]
    cores: tuple[Box, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The words that the slot can have, in the order that gives each its index."""
        return tuple(self.looks)


def _painted(
    name: str,
    nouns: tuple[str, ...],
    place: str,
    core: Box,
    paints: Mapping[str, Rgb] = PAINT,
    trait: Trait = "colour",
) -> Slot:
    return Slot(name, trait, nouns, place, {word: (paint,) for word, paint in paints.items()}, (core,))


def _count(name: str, nouns: tuple[str, ...], place: str, cores: tuple[Box, ...], paint: Rgb, behind: str) -> Slot:
    # The first so many places hold one, the others show what is behind.
    looks = {
        word: (paint,) * number + (behind,) * (len(cores) - number)
        for number, word in enumerate(("no", "one", "two", "three")[: len(cores) + 1])
    }
    return Slot(name, "count", nouns, place, looks, cores)


SLOTS: tuple[Slot, ...] = (
    _painted("sky", ("sky",), "overhead", (58, 20, 84, 34), SKY),
    _painted("hills", ("hills",), "far away", (86, 50, 104, 56), HILLS),
    _painted("meadow", ("meadow",), "all around", (1, 100, 9, 122), MEADOW),
    _painted("sea", ("sea",), "in the bay", (104, 76, 126, 82), SEA),
    _painted("roof", ("roof",), "on top of the house", (18, 44, 44, 53)),
    _painted("wall", ("wall",), "of the little house", (36, 86, 51, 92)),
    _painted("door", ("door",), "under the porch", (19, 71, 28, 90)),
    _painted("curtain", ("curtain",), "behind the window", (38, 69, 49, 79)),
    _painted("balloon", ("balloon",), "high in the air", (19, 9, 33, 24)),
    _painted("kite", ("kite",), "on a long string", (96, 12, 104, 24)),
    _painted("lighthouse", ("lighthouse", "tower"), "at the end of the land", (112, 46, 119, 66)),
    _painted("tree", ("tree",), "beside the house", (59, 49, 73, 65)),
    _painted("large_boat", ("larger boat",), "on the left", (82, 82, 98, 88)),
    _painted("small_boat", ("smaller boat",), "on the right", (110, 87, 122, 92)),
    _painted("sail", ("sail",), "on the mast", (90, 65, 96, 76)),
    _painted("path", ("path",), "to the house", (19, 102, 29, 124)),
    _painted("fence", ("fence",), "along the garden", (42, 97, 66, 105)),
    _painted("ball", ("ball",), "on the grass", (108, 97, 117, 105)),
    _painted("blanket", ("blanket",), "for the picnic", (80, 116, 98, 124)),
    _painted("animal", ("animal",), "in the corner", (112, 114, 120, 123), ANIMALS, "kind"),
    _painted("fruit", ("basket",), "in the basket", (81, 97, 93, 103), FRUITS, "kind"),
    _count("clouds", ("cloud",), "up there", ((44, 5, 50, 11), (59, 5, 65, 11), (74, 5, 80, 11)), CLOUD, "sky"),
    _count(
        "flowers",
        ("flower",),
        "by the wayside",
        ((37, 116, 43, 121), (50, 116, 56, 121), (63, 116, 69, 121)),
        FLOWER,
        "meadow",
    ),
    Slot("lamp", "switch", ("lamp",), "of the tower", {"lit": (LIT,), "dark": (DARK,)}, ((111, 32, 119, 39),)),
    Slot("chimney", "switch", ("chimney",), "above", {"smoking": (SMOKE,), "cold": ("sky",)}, ((42, 20, 50, 26),)),
)
SLOT_INDEX = {slot.name: index for index, slot in enumerate(SLOTS)}
MAX_WORDS = max(len(slot.words) for slot in SLOTS)
# Of each slot: which of `MAX_WORDS` numbers are words of it.
IS_WORD = tuple(tuple(number < len(slot.words) for number in range(MAX_WORDS)) for slot in SLOTS)

# Told in a caption's first sentence, as a short caption tells what dominates a picture.
OPENING_SLOTS = ("sky", "hills", "meadow", "sea")
