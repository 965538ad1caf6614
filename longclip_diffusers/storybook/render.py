"""A scene as a picture: flat paint with ink outlines, drawn four times too large and reduced."""

from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw

from .scene import Scene
from .slots import Rgb

__all__ = ["SIZE", "render"]

SIZE = 128
OVERSAMPLING = 4
INK: Rgb = (66, 52, 50)
LINE = 1.0
Point = tuple[float, float]


class Brush:
    """Draws shapes given in picture pixels on the larger canvas, shifted to where the current thing stands."""

    def __init__(self, scene: Scene):
        self.scene = scene
        self.image = Image.new("RGB", (SIZE * OVERSAMPLING,) * 2)
        self.draw = ImageDraw.Draw(self.image)
        self.shift = (0, 0)

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
    for x, y in ((74, 72), (114, 72), (76, 91), (112, 91)):
        brush.line([(x - 3, y), (x, y - 1), (x + 3, y)], _mix(paint, (255, 255, 255), 0.5))


def _meadow(brush: Brush, paint: Rgb) -> None:
    shore = [(-8, 68), (58, 66), (72, 78), (76, 92), (136, 92), (136, 136), (-8, 136)]
    brush.polygon(shore, paint)


def _lighthouse(brush: Brush, paint: Rgb) -> None:
    brush.polygon([(104, 72), (112, 66), (126, 66), (136, 74)], (150, 140, 132))
    brush.polygon([(113, 40), (123, 40), (125, 70), (111, 70)], paint)
    brush.box(114, 33, 122, 40, (255, 246, 200))
    brush.polygon([(112, 33), (118, 28), (124, 33)], INK)


def _wall(brush: Brush, paint: Rgb) -> None:
    brush.box(7, 56, 55, 95, paint)


def _roof(brush: Brush, paint: Rgb) -> None:
    brush.polygon([(3, 58), (15, 38), (47, 38), (59, 58)], paint)


def _door(brush: Brush, paint: Rgb) -> None:
    brush.box(17, 68, 31, 95, paint)
    brush.ellipse(28.5, 81, 30.5, 83, INK)


def _curtain(brush: Brush, paint: Rgb) -> None:
    brush.box(34, 65, 53, 83, (255, 246, 200))
    brush.box(36, 67, 51, 81, paint)


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


def _sail(brush: Brush, paint: Rgb) -> None:
    brush.line([(87, 50), (87, 80)], width=1.6)
    brush.polygon([(88, 54), (107, 78), (88, 78)], paint)


def _hull(brush: Brush, paint: Rgb) -> None:
    brush.polygon([(79, 80), (111, 80), (106, 90), (84, 90)], paint)


def _path(brush: Brush, paint: Rgb) -> None:
    brush.polygon([(16, 96), (30, 96), (32, 136), (10, 136)], paint)


def _fence(brush: Brush, paint: Rgb) -> None:
    for left in (40, 48, 56, 64):
        brush.polygon([(left, 94), (left + 3.5, 91), (left + 7, 94), (left + 7, 108), (left, 108)], paint)


def _bench(brush: Brush, paint: Rgb) -> None:
    for left in (79, 99):
        brush.box(left, 104, left + 2, 112, INK)
    brush.box(76, 96, 104, 105, paint)
    brush.box(75, 105, 105, 108, paint)


def _parasol(brush: Brush, paint: Rgb) -> None:
    brush.line([(115, 104), (115, 113)], width=1.6)
    brush.polygon([(104, 105), (106, 98), (111, 94), (119, 94), (124, 98), (126, 105)], paint)


def _barrel(brush: Brush, paint: Rgb) -> None:
    brush.box(1, 97, 13, 119, paint)
    brush.line([(1, 97), (13, 97)], width=2)
    brush.line([(1, 119), (13, 119)], width=2)


def _ball(brush: Brush, paint: Rgb) -> None:
    brush.ellipse(51, 109, 69, 127, paint)


def _blanket(brush: Brush, paint: Rgb) -> None:
    brush.polygon([(76, 113), (100, 113), (98, 124), (73, 124)], paint)


def _cat(brush: Brush, paint: Rgb) -> None:
    brush.polygon([(108, 114), (109, 107), (113, 111), (117, 111), (121, 107), (122, 114)], paint)
    brush.ellipse(106, 110, 124, 127, paint)
    brush.ellipse(110, 112.5, 112, 114.5, INK)
    brush.ellipse(118, 112.5, 120, 114.5, INK)


# From the back of the picture to its front.
PAINTERS: dict[str, Callable[[Brush, Rgb], None]] = {
    "sky": _sky,
    "hills": _hills,
    "lighthouse": _lighthouse,
    "sea": _sea,
    "meadow": _meadow,
    "balloon": _balloon,
    "kite": _kite,
    "wall": _wall,
    "roof": _roof,
    "door": _door,
    "curtain": _curtain,
    "tree": _tree,
    "sail": _sail,
    "hull": _hull,
    "path": _path,
    "fence": _fence,
    "bench": _bench,
    "parasol": _parasol,
    "barrel": _barrel,
    "ball": _ball,
    "blanket": _blanket,
    "cat": _cat,
}

# What stands on another thing moves with it.
CARRIED = {"roof": "wall", "door": "wall", "curtain": "wall", "sail": "hull", "path": "wall"}
FIXED = ("sky", "sea", "meadow")


def render(scene: Scene) -> Image.Image:
    """The scene as a 128 x 128 RGB picture; the same scene always gives the same pixels."""
    brush = Brush(scene)
    for slot, painter in PAINTERS.items():
        brush.shift = (0, 0) if slot in FIXED else scene.shift(CARRIED.get(slot, slot))
        painter(brush, scene.paint(slot))
    return brush.image.reduce(OVERSAMPLING)
