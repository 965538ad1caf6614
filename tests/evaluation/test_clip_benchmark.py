"""The triple that clip_benchmark takes gives the features that our own evaluation ranks."""

import pytest
import torch
from torch.nn.functional import normalize

from longclip_diffusers import bundled, clip_benchmark_model
from longclip_diffusers.evaluation.features import encode_images, encode_texts, open_encoder
from longclip_diffusers.training.data.storybook import StorybookData

SOURCE = bundled() / "clip"


def test_features_are_ours():
    model, transform, tokenizer = clip_benchmark_model(SOURCE)
    encoder = open_encoder(SOURCE)
    samples = [StorybookData()[index] for index in range(5)]
    pixels = torch.stack([transform(sample.image) for sample in samples])
    ids = tokenizer([sample.short_caption for sample in samples])
    assert pixels.shape == (5, 3, 128, 128)
    assert (ids.shape, ids.dtype) == ((5, 77), torch.long)
    with torch.no_grad():
        images, texts = model.encode_image(pixels), model.encode_text(ids)
    assert images.shape == texts.shape == (5, 64)
    ours = encode_images(encoder.clip, [sample.image for sample in samples], encoder.processor)
    torch.testing.assert_close(normalize(images, dim=-1), ours)
    ours = encode_texts(encoder.clip, encoder.tokenizer, [sample.short_caption for sample in samples]).features
    torch.testing.assert_close(normalize(texts, dim=-1), ours)


def test_a_text_that_is_cut_is_warned_of():
    _, _, tokenizer = clip_benchmark_model(SOURCE)
    assert tokenizer("a single text").shape == (1, 77)
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than 77 tokens"):
        ids = tokenizer(["short", "long " * 100])
    assert ids.shape == (2, 77)
    assert ids[1, -1] == 49407
