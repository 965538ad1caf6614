"""PCM's reconstruction is the SVD's, and its gradient is finite where the SVD's is not."""

import pytest
import torch
from torch.nn.functional import normalize

from longclip_diffusers.training.pcm import reconstruct

SHAPES = {"gram": (24, 40), "covariance": (60, 16)}


def draw(rows, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.arange(1, width + 1, dtype=torch.float64) ** -0.5
    common = torch.randn(width, generator=generator, dtype=torch.float64)
    return normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64) * spectrum + common, dim=-1)


def gradient(features, components, **options):
    """Of a sum with fixed random weights; also the reconstruction and the variance kept."""
    features = features.clone().requires_grad_()
    rebuilt, kept = reconstruct(features, components, **options)
    weights = torch.randn(rebuilt.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (rebuilt * weights.to(rebuilt)).sum().backward()
    return features.grad, rebuilt.detach(), kept


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_the_svd(shape):
    features = draw(*shape)
    ours, svd = (gradient(features, 5, backward=backward) for backward in ("projector", "svd"))
    centred = features - features.mean(0)
    _, scales, directions = torch.linalg.svd(centred, full_matrices=False)
    expected = features.mean(0) + centred @ directions[:5].T @ directions[:5]
    for grad, rebuilt, kept in (ours, svd):
        torch.testing.assert_close(rebuilt, expected, rtol=0, atol=1e-12)
        assert kept.item() == pytest.approx((scales[:5].square().sum() / scales.square().sum()).item())
        assert 0.3 < kept < 0.9  # else the test would see an identity
        torch.testing.assert_close(grad, svd[0], rtol=0, atol=1e-9 * svd[0].abs().max().item())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_gradient_is_the_numerical_one(shape):
    features = draw(*shape)[:10, :8].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: reconstruct(rows, 3)[0], features)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_single_precision_is_enough(shape):
    features = draw(*shape)
    exact, rebuilt, _ = gradient(features, 5)
    grad, ours, _ = gradient(features.float(), 5)
    assert grad.dtype == ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), rebuilt, rtol=0, atol=1e-5)
    assert (grad - exact).norm() < 1e-3 * exact.norm()


def test_autocast_changes_nothing():
    features = draw(24, 40).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = reconstruct(features, 5)[0]
    assert torch.equal(inside, reconstruct(features, 5)[0])
    assert reconstruct(features.bfloat16(), 5)[0].dtype == torch.float32


DEGENERATE = {
    "every row twice": draw(12, 40).repeat(2, 1),
    "every row four times, tall": draw(15, 16).repeat(4, 1),
    "identical rows": draw(1, 40).repeat(24, 1),
    "identical rows, tall": draw(1, 16).repeat(60, 1),
    "exact ties": torch.eye(24, 40, dtype=torch.float64),
    "exact ties, tall": torch.eye(16, dtype=torch.float64).repeat(4, 1),
    "one row": draw(1, 40),
    "zeros": torch.zeros(24, 40, dtype=torch.float64),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("features", DEGENERATE.values(), ids=DEGENERATE)
def test_degenerate_batches_have_finite_gradients(features, dtype):
    grad, rebuilt, kept = gradient(features.to(dtype), 5)
    assert grad.isfinite().all()
    assert rebuilt.isfinite().all()
    assert 0 <= kept <= 1 + 1e-6


def test_enough_components_give_the_rows_back():
    for components, features in ((23, draw(24, 40)), (16, draw(60, 16)), (11, draw(12, 40).repeat(2, 1))):
        _, rebuilt, kept = gradient(features, components)
        torch.testing.assert_close(rebuilt, features, rtol=0, atol=1e-12)
        assert kept.item() == pytest.approx(1)


@pytest.mark.parametrize("backward", ["projector", "svd"])
@pytest.mark.parametrize("rows", [1, 24])
def test_identity_has_the_gradient_of_one(backward, rows):
    # With the SVD's own gradient too, although its last singular value is zero here.
    features = draw(rows, 40)
    grad, rebuilt, _ = gradient(features, rows - 1, backward=backward)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(grad, weights)
    assert torch.equal(rebuilt, features)


def test_nan_is_handed_on():
    features = draw(24, 40)
    features[3, 3] = torch.nan
    rebuilt, kept = reconstruct(features, 5)
    assert rebuilt.isnan().all()
    assert kept.isnan()
