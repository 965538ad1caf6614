"""Features of a batch are those of its members alone; what an encoder cannot read is told."""

import pytest
import torch
import toy_clip
import toys
from torch.nn.functional import normalize

from longclip_diffusers.errors import CheckpointError, ModelError
from longclip_diffusers.evaluation.features import encode_for_all, encode_images, encode_texts, open_encoder
from longclip_diffusers.text_encoder import save_text_encoder

TEXTS = ["a cat", "", "a red door under the porch, and a blue ball", "x" * 200, "two words", "y" * 75, "z" * 76]


def test_texts_of_like_length_together_give_what_padded_ones_give():
    encoder = toy_clip.encoder()
    ids = encoder.tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        padded = normalize(encoder.clip.get_text_features(ids).pooler_output, dim=-1)
    for batch_size in (1, 2, 100):
        read = encode_texts(encoder.clip, encoder.tokenizer, TEXTS, batch_size)
        torch.testing.assert_close(read.features, padded)
        assert read.features.dtype == torch.float32
    assert (padded[0] - padded[4]).norm() > 0.01  # the toy tells texts apart


def test_a_text_that_is_cut_is_told():
    read = encode_texts(toy_clip.clip(), toys.tokenizer(), TEXTS)
    assert read.truncated.tolist() == [len(text) > 75 for text in TEXTS]  # a byte a token, BOS and EOS
    assert not encode_texts(toy_clip.clip(248), toys.tokenizer(248), TEXTS).truncated.any()


def test_a_cut_text_is_read_to_the_last_position():
    clip, tokenizer = toy_clip.clip(), toys.tokenizer()
    read = encode_texts(clip, tokenizer, ["x " * 75, "x " * 74 + "y", "x " * 75 + "y"]).features
    torch.testing.assert_close(read[0], read[2])
    assert (read[0] - read[1]).norm() > 0.001


def test_pictures_of_a_batch_are_those_alone():
    encoder = toy_clip.encoder()
    pictures = [
        toy_clip.picture(0),
        toy_clip.picture(1, (70, 40)),
        toy_clip.picture(2),
        toy_clip.picture(3).convert("L"),
    ]
    together = encode_images(encoder.clip, iter(pictures), encoder.processor, 3)
    alone = [encode_images(encoder.clip, [picture], encoder.processor) for picture in pictures]
    torch.testing.assert_close(together, torch.cat(alone))
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(4))
    assert (together[0] - together[2]).norm() > 0.01


def test_a_model_in_training_stays_in_training():
    encoder = toy_clip.encoder()
    encoder.clip.train()
    features = encode_images(encoder.clip, [toy_clip.picture(0)], encoder.processor)
    assert encoder.clip.training and encoder.clip.vision_model.training
    assert not features.requires_grad


def test_encoders_side_by_side_see_the_same_pictures():
    ours, base = toy_clip.encoder(name="ours"), toy_clip.encoder(name="base", seed=1)
    pictures = [toy_clip.picture(seed) for seed in range(5)]
    features = encode_for_all([ours, base], iter(pictures), 2)
    for encoder in (ours, base):
        torch.testing.assert_close(features[encoder.name], encode_images(encoder.clip, pictures, encoder.processor))
    assert (features["ours"] - features["base"]).norm() > 0.1


def test_what_cannot_be_encoded_is_refused(tmp_path):
    encoder = toy_clip.encoder()
    with pytest.raises(ModelError, match="names of their own"):
        encode_for_all([encoder, encoder], [])
    with pytest.raises(ModelError, match="no pictures to encode; were all"):
        encode_for_all([encoder], [])
    with pytest.raises(ModelError, match="no pictures"):
        encode_images(encoder.clip, [], encoder.processor)
    with pytest.raises(ModelError, match="no texts"):
        encode_texts(encoder.clip, encoder.tokenizer, [])
    with pytest.raises(ModelError, match="49408 tokens, the text tower 514"):
        encode_texts(encoder.clip, toys.real_tokenizer(), ["a"])
    save_text_encoder(toys.text_encoder(248), tmp_path)
    with pytest.raises(CheckpointError, match="text tower only"):
        open_encoder(tmp_path)
