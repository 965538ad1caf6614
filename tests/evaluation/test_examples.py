"""The sheet of examples: what is wrong is outlined in its own picture, and nothing else."""

from dataclasses import replace

import numpy as np
from PIL import Image

from longclip_diffusers.evaluation.detail import describe_scenes, score
from longclip_diffusers.evaluation.examples import Example, plot_examples
from longclip_diffusers.storybook.checker import read_picture
from longclip_diffusers.storybook.render import render


def test_a_miss_is_outlined_in_its_own_picture_and_counted_in_its_label(tmp_path):
    pairs = describe_scenes(2, seed=0, kind="long")
    facts = score(pairs, [read_picture(render(scene)) for scene, _ in pairs])
    facts = [fact for fact in facts if fact.scene == 0]
    picture = render(pairs[0][0])

    def sheet(second):
        plot_examples(
            tmp_path / "sheet.png", [Example("long", *pairs[0], {"one": (picture, facts), "two": (picture, second)})]
        )
        with Image.open(tmp_path / "sheet.png") as image:
            return np.asarray(image.convert("RGB"))

    def red(pixels):
        """Redder than any paint of the storybook."""
        return (pixels[..., 0] > 235) & (pixels[..., 1:] < 60).all(axis=-1)

    whole = sheet(facts)
    assert not red(whole).any()
    for index in (0, len(facts) - 1):
        missed = sheet([*facts[:index], replace(facts[index], shown=False), *facts[index + 1 :]])
        columns, width = np.nonzero((missed != whole).any(axis=(0, 2)))[0], whole.shape[1] / 5
        assert 2 * width < columns.min() and columns.max() < 3 * width  # the third tile: scene, one, two
        assert red(missed).any()
