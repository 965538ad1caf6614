"""Recall to look at: one text's pictures through every encoder, with what each shows wrongly outlined."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..storybook.captions import Caption, num_tokens
from ..storybook.render import render
from ..storybook.scene import Scene
from ..storybook.slots import SLOT_INDEX, SLOTS
from .detail import Fact, Kind

__all__ = ["Example", "plot_examples"]

COLUMNS = 5
TILE = 1.75  # inches
LABELS = 0.18  # inches above every picture
TITLE = 0.3  # inches above every text's pictures
OUTLINE = 3  # pixels of the picture between a thing's cores and what is drawn around it
NAMES: dict[Kind, str] = {"long": "A long caption", "chapter": "A chapter", "short": "A short prompt"}


@dataclass
class Example:
    """A text of a kind with its scene, and of each encoder the picture and the facts, looked up in it."""

    kind: Kind
    scene: Scene
    caption: Caption
    drawn: dict[str, tuple[Image.Image, list[Fact]]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Its kind and length."""
        return f"{NAMES[self.kind]} of {num_tokens(str(self.caption))} tokens"

    @property
    def num_lines(self) -> int:
        """Of tiles, the scene's and the encoders'."""
        return -(-(1 + len(self.drawn)) // COLUMNS)

    def add(self, encoder: str, picture: Image.Image, facts: Sequence[Fact]) -> None:
        """What an encoder made of the text; `facts` may be those of all scenes, of which this is the first."""
        self.drawn[encoder] = (picture, [fact for fact in facts if fact.scene == 0])


def plot_examples(path: Path, examples: Sequence[Example]) -> None:
    """A PNG of every example's scene and pictures, each labelled with how many of the facts it shows.

    A line runs around what is wrong: solid where the text tells it directly, dotted where it tells it by reference.
    """
    from matplotlib.figure import Figure

    heights = [TITLE + (TILE + LABELS) * each.num_lines for each in examples]
    figure = Figure(figsize=(COLUMNS * TILE, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(examples), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, example in zip(parts, examples, strict=True):
        part.suptitle(example.title, fontsize=10)
        tiles = part.subplots(example.num_lines, COLUMNS, squeeze=False).flat
        for axes in tiles:
            axes.set_axis_off()
        _show(tiles[0], "the scene", render(example.scene))
        for axes, (encoder, (picture, facts)) in zip(tiles[1:], example.drawn.items(), strict=False):
            _show(axes, f"{encoder}: {sum(fact.shown for fact in facts)} of {len(facts)}", picture)
            for fact in facts:
                if not fact.shown:
                    _outline(axes, fact)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _show(axes: Any, label: str, picture: Image.Image) -> None:
    axes.imshow(picture, interpolation="lanczos")
    axes.set_title(label, fontsize=7.5, pad=3)


def _outline(axes: Any, fact: Fact) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    cores = np.array(SLOTS[SLOT_INDEX[fact.slot]].cores)
    left, top = cores[:, :2].min(axis=0) - OUTLINE
    right, bottom = cores[:, 2:].max(axis=0) + OUTLINE
    frame = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor="red", linewidth=1.2)
    frame.set_linestyle("-" if fact.distance is None else ":")
    frame.set_path_effects([withStroke(linewidth=2.4, foreground="white")])
    axes.add_patch(frame)
