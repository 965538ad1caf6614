"""A saved pipeline is a plain diffusers folder: a fresh process opens it without this package and draws the same."""

import json
import subprocess
import sys

import numpy as np
import pytest
import toys
from diffusers import DiffusionPipeline
from drawing import CHAPTER, KINDS, SENTENCE, draw
from safetensors import safe_open

from longclip_diffusers import StableDiffusionLongPipeline
from longclip_diffusers.loading import stock_class
from longclip_diffusers.sidecar import SIDECAR, PromptOptions, parse_sidecar

KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
FITS = SENTENCE * 4  # more than 77 tokens, one window of 248

LOADERS = ("DiffusionPipeline", "StableDiffusionPipeline", "AutoPipelineForText2Image")

DRAW_WITHOUT_US = """
import sys
import diffusers, numpy, torch

folder, prompt, out, *loaders = sys.argv[1:]
pictures = []
for loader in loaders:
    pipe = getattr(diffusers, loader).from_pretrained(folder)
    assert type(pipe) is diffusers.StableDiffusionPipeline, type(pipe)
    generator = torch.Generator().manual_seed(0)
    size = {"height": 64, "width": 64}
    pictures.append(pipe(prompt, num_inference_steps=2, generator=generator, output_type="np", **size).images)
assert not [name for name in sys.modules if name.startswith("longclip_diffusers")]
numpy.save(out, pictures)
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A long pipeline, its options not the defaults, and the folder it was saved to."""
    folder = tmp_path_factory.mktemp("saved")
    pipe = StableDiffusionLongPipeline(**toys.stable_diffusion_components())
    pipe.load_longclip("stretch")
    pipe.prompt_options = PromptOptions(window=200, context="related")
    pipe.save_pretrained(folder)
    return pipe, folder


def test_fresh_process_without_us_draws_the_same(saved, tmp_path):
    pipe, folder = saved
    out = tmp_path / "pictures.npy"
    arguments = [sys.executable, "-c", DRAW_WITHOUT_US, folder, FITS, out, *LOADERS]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    # Stock pads to 248 rows where ours gives 77 or whole windows: the prompt fills the one window that both give.
    expected = draw(StableDiffusionLongPipeline(**pipe.components), FITS)
    pictures = np.load(out)
    assert len(pictures) == len(LOADERS)
    assert all(np.array_equal(picture, expected) for picture in pictures)


def test_options_come_back(saved):
    _, folder = saved
    options = PromptOptions(window=200, context="related")
    assert parse_sidecar((folder / SIDECAR).read_text(encoding="utf-8")) == (None, options)
    again = StableDiffusionLongPipeline.from_pretrained(folder)
    assert again.prompt_options == options
    assert again.tokenizer.model_max_length == 248
    pipe = StableDiffusionLongPipeline(**saved[0].components)
    pipe.prompt_options = options
    assert np.array_equal(draw(again, CHAPTER), draw(pipe, CHAPTER))


def test_weights_have_the_names_that_every_reader_knows(tmp_path):
    # An encoder made in memory: one that was loaded or stretched keeps the old names by itself.
    StableDiffusionLongPipeline(**toys.stable_diffusion_components(length=248)).save_pretrained(tmp_path)
    with safe_open(tmp_path / "text_encoder" / "model.safetensors", "pt") as tensors:
        keys = set(tensors.keys())
    assert keys
    assert all(key.startswith("text_model.") for key in keys)


def test_tokenizers_limit_is_saved(saved):
    _, folder = saved
    assert json.loads((folder / "tokenizer" / "tokenizer_config.json").read_text())["model_max_length"] == 248


@KIND
def test_class_name_is_stocks(kind, tmp_path):
    kind.long(**kind.components()).save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == kind.stock.__name__ == stock_class(kind.long).__name__
    assert type(DiffusionPipeline.from_pretrained(tmp_path)) is kind.stock


def test_stock_tower_stays_stock_when_saved(tmp_path):
    pipe = StableDiffusionLongPipeline(**toys.stable_diffusion_components())
    pipe.save_pretrained(tmp_path)
    again = StableDiffusionLongPipeline.from_pretrained(tmp_path)  # "auto", and no Long-CLIP of width 32 is known
    assert again.tokenizer.model_max_length == 77
    assert np.array_equal(draw(again, CHAPTER), draw(pipe, CHAPTER))


def test_half_precision_variant_comes_back(saved, tmp_path):
    pipe = StableDiffusionLongPipeline(**toys.stable_diffusion_components(length=248))
    pipe.save_pretrained(tmp_path, variant="fp16")
    again = StableDiffusionLongPipeline.from_pretrained(tmp_path, variant="fp16")
    assert np.array_equal(draw(again, FITS), draw(pipe, FITS))
