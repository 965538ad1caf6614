"""The image processor of a source: what its file says, CLIP's own where there is none."""

import json
import random

import pytest
import torch
import toy_clip
from PIL import Image
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from longclip_diffusers.checkpoints import load_clip
from longclip_diffusers.checkpoints.processor import image_processor, load_image_processor
from longclip_diffusers.errors import CheckpointError, ModelError
from longclip_diffusers.models import bundled
from longclip_diffusers.storybook.render import render
from longclip_diffusers.storybook.scene import draw_scene
from longclip_diffusers.training.miniature.autoencoder import pixels_of


@pytest.fixture
def folder(tmp_path):
    toy_clip.clip().save_pretrained(tmp_path)
    return tmp_path


def pixels(processor, picture):
    return processor(images=picture, return_tensors="pt").pixel_values[0]


def test_a_source_without_a_file_is_processed_as_openai_does(folder):
    processor = load_image_processor(folder, toy_clip.clip())
    found = pixels(processor, Image.new("RGB", (100, 60), (255, 0, 51)))
    assert found.shape == (3, 32, 32)
    expected = (torch.tensor([1, 0, 0.2]) - torch.tensor(OPENAI_CLIP_MEAN)) / torch.tensor(OPENAI_CLIP_STD)
    torch.testing.assert_close(found[:, 5, 5], expected)


def test_the_file_beside_the_weights_decides(folder):
    clip = toy_clip.clip()
    image_processor(clip, mean=(0.5,) * 3, std=(0.25,) * 3).save_pretrained(folder)
    found = pixels(load_image_processor(folder, clip), Image.new("RGB", (32, 32), (255, 0, 0)))
    assert found[:, 0, 0].tolist() == [2, -2, -2]


def test_bundled_clip_sees_the_pixels_it_was_trained_with():
    scene = draw_scene(random.Random(3))
    processor = load_image_processor(bundled() / "clip", load_clip(bundled() / "clip"))
    torch.testing.assert_close(pixels(processor, render(scene)), pixels_of([scene])[0])


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({"size": 224, "crop_size": 224}, ModelError, "makes pictures of 224x224, its image tower reads 32x32"),
        ({"size": {"longest": 1}, "crop_size": 32}, CheckpointError, "is not a CLIP's"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(folder, content, error, message):
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(error, match=message):
        load_image_processor(folder, toy_clip.clip())
