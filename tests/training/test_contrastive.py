"""The batch's gradient is that of one padded batch in one graph, however it is sorted, cut and encoded again."""

import dataclasses

import pytest
import torch
import toys
from torch.nn.functional import cross_entropy, normalize

from longclip_diffusers.training.contrastive import ContrastiveBatch, contrastive_backward, text_chunk
from longclip_diffusers.training.recipe import Recipe

LENGTH, EOS, BATCH = 40, 513, 24
RECIPE = Recipe(base="toy", batch_size=BATCH, components=6, label_smoothing=0.1, margin=0.3, short_weight=0.7)


def draw_batch(seed=0, batch=BATCH):
    generator = torch.Generator().manual_seed(seed)

    def captions(fewest, most):
        lengths = torch.randint(fewest, most + 1, (batch,), generator=generator).tolist()
        return [[512, *torch.randint(512, (length - 2,), generator=generator).tolist(), EOS] for length in lengths]

    pixels = torch.randn(batch, 3, 32, 32, generator=generator, dtype=torch.float64)
    return ContrastiveBatch(pixels, captions(10, LENGTH), captions(3, 9))


def clip():
    return toys.clip(LENGTH).double()


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_same_gradients(ours, expected, tolerance=1e-9):
    """Relative to the largest gradient of each tensor: padding changes the order of sums, no more."""
    assert ours.keys() == expected.keys()
    # A key's bias shifts all its logits alike: its true gradient is 0, and what is computed is rounding.
    smallest = 1e-3 * min(gradient.abs().max() for name, gradient in expected.items() if "k_proj.bias" not in name)
    for name, gradient in expected.items():
        scale = max(gradient.abs().max(), smallest).item()
        torch.testing.assert_close(ours[name], gradient, rtol=0, atol=tolerance * scale)


def padded(rows):
    return torch.tensor([[*row, *[EOS] * (LENGTH - len(row))] for row in rows])


def plain_losses(model, batch, recipe):
    """The released step: everything padded to the tower's length, one graph, the SVD's own gradient."""

    def texts(rows):
        return normalize(model.get_text_features(input_ids=padded(rows)).pooler_output, dim=-1)

    def loss(images, captions):
        likeness = (captions @ captions.T).detach().fill_diagonal_(0)
        logits = model.logit_scale.exp() * (images @ captions.T + recipe.margin * likeness)
        targets, smoothing = torch.arange(len(images)), recipe.label_smoothing
        both = [cross_entropy(side, targets, label_smoothing=smoothing) for side in (logits, logits.T)]
        return sum(both) / 2

    images = normalize(model.get_image_features(pixel_values=batch.images).pooler_output, dim=-1)
    mean = images.mean(dim=0)
    directions = torch.linalg.svd(images - mean, full_matrices=False).Vh[: recipe.components]
    coarse = mean + (images - mean) @ directions.T @ directions if recipe.components else images
    return loss(images, texts(batch.long_ids)), loss(coarse, texts(batch.short_ids))


def plain_gradients(model, batch, recipe, weight=1.0):
    model.zero_grad()
    long, short = plain_losses(model, batch, recipe)
    (weight * (long + recipe.short_weight * short)).backward()
    expected = gradients(model)
    model.zero_grad()
    return long.item(), short.item(), expected


@pytest.mark.parametrize("micro_batch", [5, BATCH], ids=["cached", "one graph"])
@pytest.mark.parametrize(
    "changes", [{}, {"pca": "svd"}, {"components": 0}, {"compile": True}], ids=lambda changes: str(changes)
)
def test_equals_the_padded_step(micro_batch, changes):
    model, batch, recipe = clip(), draw_batch(), dataclasses.replace(RECIPE, **changes)
    long, short, expected = plain_gradients(model, batch, recipe, weight=0.3)
    losses = contrastive_backward(model, batch, recipe, micro_batch=micro_batch, weight=0.3)
    assert (losses.loss_long, losses.loss_short) == pytest.approx((long, short), rel=1e-12)
    assert (losses.kept_variance is None) == (recipe.components == 0)
    assert_same_gradients(gradients(model), expected)


def test_gradients_add_to_what_is_there():
    model, batch = clip(), draw_batch()
    contrastive_backward(model, batch, RECIPE, micro_batch=5)
    once = {name: gradient.clone() for name, gradient in gradients(model).items()}
    contrastive_backward(model, batch, RECIPE, micro_batch=5)
    assert_same_gradients(gradients(model), {name: 2 * gradient for name, gradient in once.items()})


def count_rows(module):
    """The rows that a tower reads in each forward pass, filled while it works."""
    rows = []
    module.register_forward_pre_hook(
        lambda _, arguments, keywords: rows.append(len(next(iter(keywords.values())))), with_kwargs=True
    )
    return rows


@pytest.mark.parametrize(("micro_batch", "times"), [(5, 2), (BATCH, 1)])
def test_micro_batch_bounds_what_is_encoded_at_once(micro_batch, times):
    model = clip()
    pictures, texts = count_rows(model.vision_model), count_rows(model.text_model)
    contrastive_backward(model, draw_batch(), RECIPE, micro_batch=micro_batch)
    assert sum(pictures) == times * BATCH
    assert sum(texts) == times * 2 * BATCH
    assert max(pictures) == micro_batch
    assert max(texts) <= micro_batch


def test_frozen_vision_is_encoded_once_and_may_be_given_as_features():
    model, batch = clip(), draw_batch()
    _, _, whole = plain_gradients(model, batch, RECIPE)
    expected = {name: gradient for name, gradient in whole.items() if not name.startswith("vis")}
    model.vision_model.requires_grad_(False)
    model.visual_projection.requires_grad_(False)
    pictures = count_rows(model.vision_model)
    contrastive_backward(model, batch, RECIPE, micro_batch=5)
    assert sum(pictures) == BATCH
    assert_same_gradients(gradients(model), expected)
    with torch.no_grad():
        features = model.get_image_features(pixel_values=batch.images).pooler_output
    model.zero_grad()
    pictures.clear()
    contrastive_backward(model, dataclasses.replace(batch, images=features), RECIPE, micro_batch=5)
    assert not pictures
    assert_same_gradients(gradients(model), expected)


def test_bf16_is_for_the_towers_only():
    model, batch = toys.clip(LENGTH), draw_batch()
    batch = dataclasses.replace(batch, images=batch.images.float())
    exact = contrastive_backward(model, batch, RECIPE, micro_batch=5)
    expected = gradients(model)
    model.zero_grad()
    rough = contrastive_backward(model, batch, dataclasses.replace(RECIPE, precision="bf16"), micro_batch=5)
    assert rough != exact
    # bf16 keeps 8 bits, and the towers are a few layers deep.
    assert rough.loss_long == pytest.approx(exact.loss_long, rel=0.03)
    assert all(gradient.dtype == torch.float32 for gradient in gradients(model).values())
    ours, theirs = (torch.cat([g.flatten() for g in side.values()]) for side in (gradients(model), expected))
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.99


def test_duplicated_samples_have_finite_gradients():
    model, batch = clip(), draw_batch()
    twice = ContrastiveBatch(batch.images[:6].repeat(4, 1, 1, 1), batch.long_ids[:6] * 4, batch.short_ids[:6] * 4)
    losses = contrastive_backward(model, twice, dataclasses.replace(RECIPE, components=4), micro_batch=BATCH)
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())
    assert losses.saturated == 0  # each text has four pictures


def test_learned_pairs_are_saturated():
    # The logit scale alone: with the true pairs on top, a huge scale leaves no loss.
    model, batch = clip(), draw_batch()
    with torch.no_grad():
        model.logit_scale.fill_(20.0)
    texts = normalize(model.get_text_features(input_ids=padded(batch.long_ids)).pooler_output, dim=-1)
    batch = dataclasses.replace(batch, images=texts.detach())
    losses = contrastive_backward(model, batch, dataclasses.replace(RECIPE, label_smoothing=0.5), micro_batch=5)
    assert losses.saturated == 1


@pytest.mark.parametrize(("changes", "told"), [({"components": BATCH - 1}, True), ({"components": 6}, False)])
def test_warns_where_pcm_changes_nothing(changes, told, recwarn):
    model, batch = clip(), draw_batch()
    contrastive_backward(model, batch, dataclasses.replace(RECIPE, **changes), micro_batch=BATCH)
    assert [str(warning.message)[:22] for warning in recwarn] == ["PCM does nothing here:"] * told


@pytest.mark.parametrize(
    ("lengths", "micro_batch", "chunk"),
    [
        ([100, 156] * 64, 128, 16),  # 2048 tokens
        ([20, 30] * 64, 128, 128),  # short ones: as many as there are
        ([100, 156] * 2048, 512, 256),  # a sixteenth of a large batch
        ([100, 156] * 2048, 64, 64),
        ([128] * 64, 48, 48),  # nothing to sort
    ],
)
def test_chunks_of_captions_keep_the_device_busy(lengths, micro_batch, chunk):
    assert text_chunk(lengths, micro_batch, torch.device("cpu")) == chunk
