"""The storybook as data: every index is another scene, drawn on the fly; neighbours differ in two slots only.

A scene drawn at random differs from any other in most of its slots: one look at its summary tells it, and nothing
else would be learned. So four neighbours are one scene with two other slots changed in each.
"""

import random
from itertools import accumulate

from PIL import Image

from ...storybook.captions import CROWDED, LONGEST, Caption, Shares, chapter, long_caption, num_tokens, short_caption
from ...storybook.phrases import TRAINING, Phrases
from ...storybook.render import render
from ...storybook.scene import Scene, draw_scene, vary
from .sample import TextImageData

__all__ = ["StorybookData"]

NUM_SCENES = 1_000_000  # an epoch nobody reaches
GROUP_SIZE = 4
NUM_CHANGED = 2
# Long texts that are the beginning of a chapter: there story stands between the details, and between a pronoun and its
# noun. A chapter tells all 25 slots in some 300 tokens, so its first 245 tell most of what sets neighbours apart.
CHAPTER_SHARE, CHAPTER_TOKENS = 0.5, 350
CROWDED_SHARE = 0.5


class StorybookData(TextImageData):
    """Scene, long text (at most 245 tokens), short caption and picture of an index depend on (seed, index) alone.

    Every second long text is a long caption, the others begin a chapter, and half of either are crowded with
    references; of held-out scenes all are long captions, none of them crowded.
    """

    name = "storybook"
    has_images = True
    group_size = GROUP_SIZE

    def __init__(
        self, seed: int = 0, *, part: str = "train", num_scenes: int = NUM_SCENES, phrases: Phrases = TRAINING
    ):
        self.seed, self.part, self.num_scenes, self.phrases = seed, part, num_scenes, phrases

    @property
    def workers_help(self) -> bool:
        """A scene is drawn in three milliseconds: next to a training step that is nothing."""
        return False

    def held_out(self, num_scenes: int, *, phrases: Phrases = TRAINING) -> "StorybookData":
        """Scenes of seeds that training never draws from, told in the given phrases."""
        return StorybookData(self.seed, part="validation", num_scenes=num_scenes, phrases=phrases)

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
        """The long text and the short caption of the scene."""
        rng, scene = self._rng("texts", index), self.scene(index)
        trains = self.part == "train"
        shares = CROWDED if trains and rng.random() < CROWDED_SHARE else Shares()
        if trains and rng.random() < CHAPTER_SHARE:
            told = chapter(scene, rng, length=CHAPTER_TOKENS, phrases=self.phrases, shares=shares)
            long_text = _beginning(told)
        else:
            long_text = str(long_caption(scene, rng, phrases=self.phrases, shares=shares))
        return long_text, str(short_caption(scene, rng, phrases=self.phrases))

    def image(self, index: int) -> Image.Image:
        """The scene drawn, 128 x 128."""
        return render(self.scene(index))


def _beginning(caption: Caption) -> str:
    """The first sentences, as many as fit."""
    lengths = accumulate(num_tokens(sentence.text) for sentence in caption.sentences)
    fitting = zip(caption.sentences, lengths, strict=True)
    return " ".join(sentence.text for sentence, length in fitting if length <= LONGEST)
