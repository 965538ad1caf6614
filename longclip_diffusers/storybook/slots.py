"""What a picture can differ in: twenty-two slots, each one thing with one of six colours at a known place.

Coordinates are pixels of the 128 x 128 picture. A slot's `core` is a box that holds only its own paint,
whatever the scene's shifts (`scene.MAX_SHIFT`) and whatever is painted over it; the checker reads there.
"""

from dataclasses import dataclass

__all__ = ["OPENING_SLOTS", "SLOTS", "Box", "Rgb", "Slot"]

Rgb = tuple[int, int, int]
Box = tuple[int, int, int, int]

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
FUR: dict[str, Rgb] = {
    "white": (245, 241, 230),
    "black": (52, 48, 58),
    "grey": (148, 152, 160),
    "brown": (152, 96, 52),
    "orange": (236, 138, 52),
    "pink": (240, 150, 180),
}


@dataclass(frozen=True)
class Slot:
    """One thing in the picture: its name, its nouns and place in a sentence, its colours and where to read it."""

    name: str
    nouns: tuple[str, ...]
    place: str
    colours: dict[str, Rgb]
    core: Box

    @property
    def words(self) -> tuple[str, ...]:
        """The colour words, in the order that gives each its index."""
        return tuple(self.colours)


SLOTS: tuple[Slot, ...] = (
    Slot("sky", ("sky",), "overhead", SKY, (46, 4, 82, 26)),
    Slot("hills", ("hills",), "far away", HILLS, (88, 50, 106, 55)),
    Slot("meadow", ("meadow",), "all around", MEADOW, (32, 112, 46, 126)),
    Slot("sea", ("sea",), "in the bay", SEA, (112, 76, 126, 88)),
    Slot("roof", ("roof",), "on top of the house", PAINT, (18, 44, 44, 53)),
    Slot("wall", ("wall", "house wall"), "of the little house", PAINT, (36, 87, 50, 92)),
    Slot("door", ("door", "front door"), "under the porch", PAINT, (19, 71, 28, 90)),
    Slot("curtain", ("curtain",), "behind the window", PAINT, (38, 69, 49, 79)),
    Slot("balloon", ("balloon", "air balloon"), "high in the air", PAINT, (19, 9, 33, 24)),
    Slot("kite", ("kite", "paper kite"), "above the water", PAINT, (96, 12, 104, 24)),
    Slot("lighthouse", ("lighthouse",), "at the end of the land", PAINT, (115, 44, 121, 66)),
    Slot("tree", ("tree", "round tree"), "beside the house", PAINT, (59, 49, 73, 65)),
    Slot("hull", ("hull", "wooden hull"), "of the boat", PAINT, (86, 82, 104, 87)),
    Slot("sail", ("sail",), "on the mast", PAINT, (90, 65, 96, 76)),
    Slot("path", ("path", "garden path"), "in front of the door", PAINT, (16, 102, 28, 124)),
    Slot("fence", ("fence", "picket fence"), "along the garden", PAINT, (42, 96, 66, 104)),
    Slot("bench", ("bench", "long bench"), "by the shore", PAINT, (79, 98, 101, 103)),
    Slot("parasol", ("parasol",), "on the beach", PAINT, (109, 97, 121, 103)),
    Slot("barrel", ("barrel", "rain barrel"), "at the corner", PAINT, (4, 100, 10, 116)),
    Slot("ball", ("ball", "big ball"), "on the grass", PAINT, (56, 114, 64, 122)),
    Slot("blanket", ("blanket",), "for the picnic", PAINT, (78, 116, 96, 121)),
    Slot("cat", ("cat", "small cat"), "near the blanket", FUR, (111, 115, 119, 123)),
)

# Told in a caption's first sentence, as a short caption tells what dominates a picture.
OPENING_SLOTS = ("sky", "hills", "meadow", "sea")
