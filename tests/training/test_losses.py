"""The contrastive loss: CLIP's own in one process, whole in shards, in full precision."""

import math

import pytest
import torch
from torch.nn.functional import normalize
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from longclip_diffusers.training.losses import contrastive_loss, saturated_share

SCALE = torch.tensor(2.5, dtype=torch.float64)


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(2, 12, 16, generator=generator, dtype=torch.float64)
    return normalize(images, dim=-1), normalize(images + texts, dim=-1)


def test_equals_transformers(pairs):
    images, texts = pairs
    expected = image_text_contrastive_loss(SCALE.exp() * texts @ images.T)
    torch.testing.assert_close(contrastive_loss(images, texts, SCALE), expected)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "margin": 0.5}])
def test_shards_are_the_whole(pairs, options):
    images, texts = pairs
    shards = [
        contrastive_loss(
            images[first : first + 4],
            texts[first : first + 4],
            SCALE,
            all_images=images,
            all_texts=texts,
            first=first,
            **options,
        )
        for first in (0, 4, 8)
    ]
    torch.testing.assert_close(torch.stack(shards).mean(), contrastive_loss(images, texts, SCALE, **options))


def test_label_smoothing_spreads_the_target():
    # Nothing but the scale: logits are 1 for the true pair and 0 for the other one.
    eye, zero = torch.eye(2), torch.tensor(0.0)
    right, wrong = -math.log(math.e / (math.e + 1)), -math.log(1 / (math.e + 1))
    assert contrastive_loss(eye, eye, zero).item() == pytest.approx(right)
    assert contrastive_loss(eye, eye, zero, label_smoothing=0.2).item() == pytest.approx(0.9 * right + 0.1 * wrong)


def test_margin_makes_alike_texts_harder_and_is_a_constant(pairs):
    images, texts = pairs
    texts.requires_grad_()
    torch.testing.assert_close(
        contrastive_loss(torch.zeros_like(images), texts, SCALE, margin=0.0).item(), math.log(len(texts))
    )
    # Pictures that say nothing leave the margin alone to shape the logits.
    loss = contrastive_loss(torch.zeros_like(images), texts, SCALE, margin=0.5)
    likeness = 0.5 * (texts @ texts.T).detach().fill_diagonal_(0)
    targets = torch.arange(len(texts))
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(SCALE.exp() * likeness, targets))
    loss.backward()
    assert not texts.grad.any()


def test_autocast_changes_nothing(pairs):
    images, texts, scale = (tensor.float() for tensor in (*pairs, SCALE))
    with torch.autocast("cpu", torch.bfloat16):
        inside = contrastive_loss(images, texts, scale, margin=0.5)
    # bf16 would be off in the third digit.
    assert inside.item() == pytest.approx(contrastive_loss(*pairs, SCALE, margin=0.5).item(), rel=1e-5)
    assert contrastive_loss(images.bfloat16(), texts.bfloat16(), scale).dtype == torch.float32


def test_saturated_share_counts_both_directions():
    images, texts = torch.eye(3), torch.eye(3)
    texts[2] = texts[1]
    share = saturated_share(images, texts, torch.tensor(5.0), all_images=images, all_texts=texts)
    # Sure: picture 0, text 0, text 1. Undecided or wrong: picture 1 (two texts alike), picture 2 and text 2.
    assert share.item() == pytest.approx(3 / 6)
