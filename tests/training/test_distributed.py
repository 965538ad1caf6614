"""Two processes on half the batch each do what one does on the whole: the same losses, the same gradient."""

import dataclasses

import pytest
import torch
import torch.multiprocessing
from torch.nn.functional import normalize
from toys import clip as build_clip
from two_processes import CASES, EOS, LENGTH, draw_batch, step, work

from longclip_diffusers.training import distributed
from longclip_diffusers.training.contrastive import ContrastiveLosses
from longclip_diffusers.training.losses import contrastive_loss
from longclip_diffusers.training.pcm import reconstruct


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The facts and results of process 0 and of process 1."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(work, (folder,), nprocs=2)
    with torch.serialization.safe_globals([ContrastiveLosses]):
        return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def relative_error(ours, expected):
    ours, expected = (torch.cat([gradient.flatten() for gradient in side.values()]) for side in (ours, expected))
    return ((ours - expected).norm() / expected.norm()).item()


# In single precision a loss of ten is known to 1e-6 only.
@pytest.mark.parametrize(
    ("case", "tolerance", "rounding"),
    [("double", 1e-9, 0.0), ("double, one graph", 1e-9, 0.0), ("single", 0.01, 1e-6)],
    ids=["double-1e-09", "double, one graph-1e-09", "single-0.01"],
)
def test_two_processes_are_one(both, case, tolerance, rounding):
    losses, expected = step(case)
    assert losses.kept_variance < 0.99  # or PCM would be an identity, and its scope would not matter
    for _, results in both:
        theirs, gradients = results[case]
        assert dataclasses.astuple(theirs) == pytest.approx(dataclasses.astuple(losses), rel=rounding, abs=1e-6)
        assert relative_error(gradients, expected) < tolerance


def test_rank_pca_sees_one_process(both):
    # The released behaviour: components of each half, then the whole batch's losses.
    dtype, recipe, _ = CASES["rank"]
    clip, batch = build_clip(LENGTH).to(dtype), draw_batch(dtype)

    def texts(rows):
        ids = torch.tensor([[*row, *[EOS] * (LENGTH - len(row))] for row in rows])
        return normalize(clip.get_text_features(input_ids=ids).pooler_output, dim=-1)

    images = normalize(clip.get_image_features(pixel_values=batch.images).pooler_output, dim=-1)
    coarse = torch.cat([reconstruct(half, recipe.components)[0] for half in images.chunk(2)])
    options = {"label_smoothing": recipe.label_smoothing, "margin": recipe.margin}
    loss_long = contrastive_loss(images, texts(batch.long_ids), clip.logit_scale, **options)
    loss_short = contrastive_loss(coarse, texts(batch.short_ids), clip.logit_scale, **options)
    (loss_long + recipe.short_weight * loss_short).backward()
    expected = {name: parameter.grad for name, parameter in clip.named_parameters()}
    for _, results in both:
        losses, gradients = results["rank"]
        assert (losses.loss_long, losses.loss_short) == pytest.approx((loss_long.item(), loss_short.item()), abs=1e-12)
        assert relative_error(gradients, expected) < 1e-9
    assert relative_error(expected, step("double")[1]) > 0.01  # and it is another gradient than the global one


def test_processes_agree(both):
    for rank, (facts, _) in enumerate(both):
        assert facts == {
            "rank": rank,
            "num_processes": 2,
            "gathered": [[1.0], [2.0]],
            "gradient": [10.0, 100.0][rank] * (1 + 2),  # from the losses of both processes
            "any": [True, False],
            "average": [0.5, 3.0],
        }


def test_one_process_changes_nothing():
    rows, parameter = torch.ones(2, 3), torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    distributed.average_gradients([parameter])
    assert parameter.grad.tolist() == [1, 1]
    assert distributed.gather(rows) is rows
    assert (distributed.rank(), distributed.num_processes()) == (0, 1)
    assert distributed.any_process(True) and not distributed.any_process(False)
    assert distributed.average([1.5, 2.0]) == [1.5, 2.0]
