"""The storybook as data: every index is another scene, drawn on the fly; neighbours differ in two slots only.

A scene drawn at random differs from any other in most of its slots: one look at its summary tells it, and nothing
else would be learned. So four neighbours are one scene with two other slots changed in each.
"""

import random

from PIL import Image

from ...storybook.captions import long_caption, short_caption
from ...storybook.render import render
from ...storybook.scene import Scene, draw_scene, vary
from .sample import TextImageData

__all__ = ["StorybookData"]

NUM_SCENES = 1_000_000  # an epoch nobody reaches
GROUP_SIZE = 4
NUM_CHANGED = 2


class StorybookData(TextImageData):
    """Scene, long caption (180 to 245 tokens), short caption and picture of an index depend on (seed, index) alone."""

    name = "storybook"
    has_images = True
    group_size = GROUP_SIZE

    def __init__(self, seed: int = 0, *, part: str = "train", num_scenes: int = NUM_SCENES):
        self.seed, self.part, self.num_scenes = seed, part, num_scenes

    @property
    def workers_help(self) -> bool:
        """A scene is drawn in three milliseconds: next to a training step that is nothing."""
        return False

    def held_out(self, num_scenes: int) -> "StorybookData":
        """Scenes of seeds that training never draws from."""
        return StorybookData(self.seed, part="validation", num_scenes=num_scenes)

    def __len__(self) -> int:
        return self.num_scenes

    def _rng(self, what: str, number: int) -> random.Random:
        return random.Random(f"storybook {self.part} {self.seed} {what} {number}")

    def scene(self, index: int) -> Scene:
        """The group's scene with this member's slots changed."""
        rng = self._rng("scene", index)
        scene = draw_scene(self._rng("group", index // GROUP_SIZE))
        return vary(scene, rng, NUM_CHANGED)

    def texts(self, index: int) -> tuple[str, str]:
        """Both captions of the scene."""
        rng, scene = self._rng("texts", index), self.scene(index)
        return str(long_caption(scene, rng)), str(short_caption(scene, rng))

    def image(self, index: int) -> Image.Image:
        """The scene drawn, 128 x 128."""
        return render(self.scene(index))
