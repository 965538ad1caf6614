"""Ranks against a slow loop over the whole matrix; ties, ragged captions, chunks, NaN."""

import pytest
import torch
from torch.nn.functional import normalize

from longclip_diffusers.errors import ModelError
from longclip_diffusers.evaluation.metrics import bootstrap_interval, match_ranks, monotonicity, recall_at

NUM_IMAGES, NUM_TEXTS, WIDTH = 23, 61, 16


def unit(*shape, seed=0):
    return normalize(torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture
def ragged():
    """Pictures, captions near theirs, and whose each is: one to five captions a picture, in no order."""
    generator = torch.Generator().manual_seed(1)
    spare = torch.randint(NUM_IMAGES, (NUM_TEXTS - NUM_IMAGES,), generator=generator)
    image_of_text = torch.cat([torch.arange(NUM_IMAGES), spare])[torch.randperm(NUM_TEXTS, generator=generator)]
    images = unit(NUM_IMAGES)
    return images, normalize(images[image_of_text] + 1.6 * unit(NUM_TEXTS, seed=2), dim=-1), image_of_text


def slow_recall(images, texts, image_of_text, k):
    """Both recalls by sorting each row of the whole matrix; no ties in it."""
    scores = texts @ images.T
    to_image = [image_of_text[row] in scores[row].argsort(descending=True)[:k] for row in range(len(texts))]
    to_text = []
    for image in range(len(images)):
        best = scores[:, image].argsort(descending=True)[:k]
        to_text.append(any(image_of_text[text] == image for text in best))
    return sum(to_text) / len(to_text), sum(to_image) / len(to_image)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_recall_is_that_of_a_slow_loop(ragged, k):
    found = recall_at(*ragged)
    assert (found[f"i2t_R@{k}"], found[f"t2i_R@{k}"]) == pytest.approx(slow_recall(*ragged, k))
    assert k > 1 or 0.1 < found["t2i_R@1"] < found["i2t_R@1"] < 1  # having several captions helps one direction


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunks_change_nothing(ragged, chunk):
    assert recall_at(*ragged, chunk=chunk) == recall_at(*ragged)


def test_pictures_that_equal_their_captions_are_found_and_shuffled_ones_by_chance():
    images = unit(400)
    assert set(recall_at(images, images, torch.arange(400)).values()) == {1}
    shuffled = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    assert recall_at(images, images, shuffled, ks=(20,))["t2i_R@20"] == pytest.approx(20 / 400, abs=0.04)


def test_ties_count_against():
    constant = unit(1).expand(200, WIDTH)
    assert set(recall_at(constant, constant, torch.arange(200)).values()) == {0}
    # The whole gallery holds the right entry, tie or not.
    assert set(recall_at(constant[:5], constant[:5], torch.arange(5), ks=(5,)).values()) == {1}


def test_a_copy_of_the_right_picture_is_a_tie_wherever_it_stands():
    images = unit(300)
    images[250] = images[3]
    ranks = match_ranks(images, torch.arange(300), images, torch.arange(300), chunk=17)
    assert ranks.nonzero().flatten().tolist() == [3, 250]


def test_low_precision_features_are_ranked_in_float32(ragged):
    images, texts, image_of_text = (part.bfloat16() if part.is_floating_point() else part for part in ragged)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = recall_at(images, texts, image_of_text)
    assert found == recall_at(images.float(), texts.float(), image_of_text)
    assert found["t2i_R@1"] == pytest.approx(slow_recall(images.double(), texts.double(), image_of_text, 1)[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images, texts, of: (images * torch.nan, texts, of), "NaN or infinite"),
        (lambda images, texts, of: (images, texts / 0, of), "NaN or infinite"),
        (lambda images, texts, of: (images, texts, of.clamp(max=3)), "no right entry"),
        (lambda images, texts, of: (images, texts, of[:-1]), "need as many labels"),
        (lambda images, texts, of: (images[:, :8], texts, of), r"got \(23, 8\) and \(61, 16\)"),
        (lambda images, texts, of: (images[:0], texts, of), "no queries"),
    ],
)
def test_what_cannot_be_ranked_is_refused(ragged, change, message):
    with pytest.raises(ModelError, match=message):
        recall_at(*change(*ragged))


def test_a_score_that_rises_with_every_prefix_is_monotone():
    images, other = unit(3), unit(3, seed=5)
    nearer = [normalize(images + weight * other, dim=-1) for weight in (3.0, 1.0, 0.1)]
    rises = monotonicity(images, torch.stack([*nearer, nearer[-1]], dim=1))
    assert rises.tolist() == [[True, True, False]] * 3  # an equal score is no rise
    assert not monotonicity(images, torch.stack(nearer[::-1], dim=1)).any()


@pytest.mark.parametrize(("prefixes", "message"), [((4, 2), "Expected image features"), ((3,), "Expected image")])
def test_prefixes_of_other_texts_are_refused(prefixes, message):
    with pytest.raises(ModelError, match=message):
        monotonicity(unit(3), unit(*prefixes))
    with pytest.raises(ModelError, match="NaN"):
        monotonicity(unit(3), unit(3, 2) * torch.nan)


def test_interval_is_wider_where_values_come_in_groups():
    values = [index % 2 == 0 for index in range(50) for _ in range(4)]
    low, high = bootstrap_interval(range(200), values)
    grouped_low, grouped_high = bootstrap_interval([index // 4 for index in range(200)], values)
    assert low < 0.5 < high
    assert 1.7 < (grouped_high - grouped_low) / (high - low) < 2.3  # four equal values tell as much as one


def test_interval_does_not_depend_on_how_many_are_drawn_at_once(monkeypatch):
    values = [index % 3 == 0 for index in range(100)]
    whole = bootstrap_interval(range(100), values)
    monkeypatch.setattr("longclip_diffusers.evaluation.metrics.DRAWS_AT_ONCE", 700)
    assert bootstrap_interval(range(100), values) == whole
