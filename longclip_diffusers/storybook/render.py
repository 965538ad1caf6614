"""A scene as a picture: flat paint with ink outlines, drawn four times too large and reduced."""

from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw

from .scene import Scene
from .slots import CLOUD, FLOWER, Rgb

__all__ = ["SIZE", "render"]

SIZE = 128
OVERSAMPLING = 4
INK: Rgb = (66, 52, 50)
LINE = 1.0
Point = tuple[float, float]


class Brush:
    """Draws shapes given in picture pixels on the larger canvas, shifted to where the current thing stands."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (SIZE * OVERSAMPLING,) * 2)
        self.draw = ImageDraw.Draw(self.image)
        self.shift: tuple[int, int] = (0, 0)

    def _at(self, points: Sequence[Point]) -> list[Point]:
        dx, dy = self.shift
        return [((x + dx) * OVERSAMPLING, (y + dy) * OVERSAMPLING) for x, y in points]

    def polygon(self, points: Sequence[Point], fill: Rgb, outline: bool = True) -> None:
        """A filled shape, with an ink line around it unless told otherwise."""
        placed = self._at(points)
        self.draw.polygon(placed, fill=fill)
        if outline:
            self.draw.line([*placed, placed[0], placed[1]], fill=INK, width=round(LINE * OVERSAMPLING), joint="curve")

    def box(self, left: float, top: float, right: float, bottom: float, fill: Rgb, outline: bool = True) -> None:
        """A filled rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], fill, outline)

    def ellipse(self, left: float, top: float, right: float, bottom: float, fill: Rgb) -> None:
        """A filled ellipse with an ink line."""
        corners = self._at([(left, top), (right, bottom)])
        self.draw.ellipse([*corners[0], *corners[1]], fill=fill, outline=INK, width=round(LINE * OVERSAMPLING))

    def line(self, points: Sequence[Point], fill: Rgb = INK, width: float = LINE) -> None:
        """An open line."""
        self.draw.line(self._at(points), fill=fill, width=round(width * OVERSAMPLING), joint="curve")


def _mix(colour: Rgb, other: Rgb, share: float) -> Rgb:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def _sky(brush: Brush, paint: Rgb) -> None:
    brush.box(-8, -8, SIZE + 8, 70, paint, outline=False)


def _hills(brush: Brush, paint: Rgb) -> None:
    ridge = [(-8, 52), (14, 44), (40, 50), (66, 42), (86, 46), (100, 44), (136, 54), (136, 78), (-8, 78)]
    brush.polygon(ridge, paint)


def _sea(brush: Brush, paint: Rgb) -> None:
    brush.box(60, 66, SIZE + 8, 96, paint)
    for x, y in ((74, 72), (98, 73), (74, 94), (104, 94)):
        brush.line([(x - 3, y), (x, y - 1), (x + 3, y)], _mix(paint, (255, 255, 255), 0.5))


def _meadow(brush: Brush, paint: Rgb) -> None:
    shore = [(-8, 68), (58, 66), (70, 78), (74, 94), (136, 94), (136, 136), (-8, 136)]
    brush.polygon(shore, paint)


def _lighthouse(brush: Brush, paint: Rgb) -> None:
    brush.polygon([(102, 72), (109, 66), (124, 66), (136, 74)], (150, 140, 132))
    brush.polygon([(109, 42), (122, 42), (124, 70), (107, 70)], paint)


def _lamp(brush: Brush, paint: Rgb) -> None:
    brush.box(108, 29.5, 122, 42, paint)
    brush.polygon([(106, 30), (115, 23), (124, 30)], INK)


def _chimney(brush: Brush, paint: Rgb | None) -> None:
    if paint:
        brush.ellipse(44, 26, 50, 31, paint)
        brush.ellipse(38, 16.5, 54, 29, paint)
    brush.box(43, 33, 50, 46, (150, 96, 80))


def _wall(brush: Brush, paint: Rgb) -> None:
    brush.box(7, 56, 55, 95, paint)


def _roof(brush: Brush, paint: Rgb) -> None:
    brush.polygon([(3, 58), (15, 38), (47, 38), (59, 58)], paint)


def _door(brush: Brush, paint: Rgb) -> None:
    brush.box(16, 68, 31, 95, paint)
    brush.ellipse(28.5, 81, 30.5, 83, INK)


def _curtain(brush: Brush, paint: Rgb) -> None:
    brush.box(34, 65, 53, 83, (255, 246, 200))
    brush.box(35.5, 66.5, 51.5, 81.5, paint)


def _tree(brush: Brush, paint: Rgb) -> None:
    brush.box(64, 66, 68, 90, (112, 80, 60))
    brush.ellipse(54, 44, 78, 70, paint)


def _balloon(brush: Brush, paint: Rgb) -> None:
    brush.line([(20, 27), (23, 34)])
    brush.line([(32, 27), (29, 34)])
    brush.ellipse(14, 3, 38, 30, paint)
    brush.box(23, 33, 29, 37, (134, 96, 66))


def _kite(brush: Brush, paint: Rgb) -> None:
    brush.line([(100, 33), (104, 37), (99, 41), (103, 45)])
    brush.polygon([(100, 2), (113, 17), (100, 34), (87, 17)], paint)


def _clouds(brush: Brush, left: float) -> None:
    brush.ellipse(left, 2, left + 14, 14, CLOUD)


def _sail(brush: Brush, paint: Rgb) -> None:
    brush.line([(87, 50), (87, 80)], width=1.6)
    brush.polygon([(88, 52), (108, 78), (88, 78)], paint)


def _large_boat(brush: Brush, paint: Rgb) -> None:
    brush.polygon([(76, 79.5), (105, 79.5), (100, 91), (81, 91)], paint)


def _small_boat(brush: Brush, paint: Rgb) -> None:
    brush.polygon([(105, 84.5), (127, 84.5), (123, 95), (109, 95)], paint)


def _path(brush: Brush, paint: Rgb) -> None:
    brush.polygon([(17, 96), (31, 96), (34, 136), (14, 136)], paint)


def _fence(brush: Brush, paint: Rgb) -> None:
    for left in (39, 46.5, 54, 61.5):
        brush.polygon([(left, 94), (left + 3.75, 91), (left + 7.5, 94), (left + 7.5, 109), (left, 109)], paint)


def _ball(brush: Brush, paint: Rgb) -> None:
    brush.ellipse(103.5, 92.5, 121.5, 109.5, paint)


def _blanket(brush: Brush, paint: Rgb) -> None:
    brush.polygon([(77, 113.5), (104, 113.5), (101, 127), (73, 127)], paint)


def _fruit(brush: Brush, paint: Rgb) -> None:
    for left, top in ((77, 98), (90, 98), (83.5, 94)):
        brush.ellipse(left, top, left + 8, top + 8, paint)
    brush.box(79.5, 96.5, 94.5, 105, paint, outline=False)
    brush.polygon([(75, 104.5), (99, 104.5), (96, 111.5), (78, 111.5)], (190, 140, 84))


def _flowers(brush: Brush, left: float) -> None:
    brush.line([(left + 5.5, 119), (left + 5.5, 127)], (60, 110, 60), width=1.6)
    brush.ellipse(left, 113, left + 11, 124, FLOWER)


def _animal(brush: Brush, paint: Rgb, ears: str) -> None:
    if ears == "raven":
        brush.polygon([(104, 117), (110, 114), (110, 121)], (240, 190, 60))
    elif ears in ("mouse", "dog"):
        for left in (107, 119):
            brush.ellipse(left, 106.5, left + 7, 114, paint)
    elif ears != "sheep":
        brush.polygon([(108, 114), (108, 107), (113, 111), (119, 111), (124, 107), (124, 114)], paint)
    brush.ellipse(106, 109.5, 126, 127.5, paint)
    for left in (110, 119):
        brush.ellipse(left, 111, left + 2.2, 113.2, INK)


# Where each of what is counted stands, from the left.
PLACES = {"clouds": (40, 55, 70), "flowers": (34.5, 47.5, 60.5)}
# From the back of the picture to its front.
PAINTERS: dict[str, Callable[..., None]] = {
    "sky": _sky,
    "clouds": _clouds,
    "hills": _hills,
    "lighthouse": _lighthouse,
    "lamp": _lamp,
    "sea": _sea,
    "meadow": _meadow,
    "balloon": _balloon,
    "kite": _kite,
    "wall": _wall,
    "chimney": _chimney,
    "roof": _roof,
    "door": _door,
    "curtain": _curtain,
    "tree": _tree,
    "sail": _sail,
    "large_boat": _large_boat,
    "small_boat": _small_boat,
    "path": _path,
    "fence": _fence,
    "fruit": _fruit,
    "ball": _ball,
    "blanket": _blanket,
    "flowers": _flowers,
    "animal": _animal,
}

# What stands on another thing moves with it.
CARRIED = {
    "roof": "wall",
    "door": "wall",
    "curtain": "wall",
    "chimney": "wall",
    "path": "wall",
    "sail": "large_boat",
    "lamp": "lighthouse",
}
FIXED = ("sky", "sea", "meadow")


def render(scene: Scene) -> Image.Image:
    """The scene as a 128 x 128 RGB picture; the same scene always gives the same pixels."""
    brush = Brush()
    for slot, painter in PAINTERS.items():
        brush.shift = (0, 0) if slot in FIXED else scene.shift(CARRIED.get(slot, slot))
        looks = scene.look(slot)
        if slot in PLACES:
            for place, look in zip(PLACES[slot], looks, strict=True):
                if not isinstance(look, str):
                    painter(brush, place)
        elif slot == "animal":
            painter(brush, looks[0], scene[slot])
        else:
            painter(brush, None if isinstance(looks[0], str) else looks[0])
    return brush.image.reduce(OVERSAMPLING)
