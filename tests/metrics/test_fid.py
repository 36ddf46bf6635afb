import numpy as np
import pytest
import scipy.linalg

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.fid import frechet_distance


def features(count: int, width: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)) * scale + shift


def by_square_root(first: np.ndarray, second: np.ndarray) -> float:
    """Equation 6 of the paper, word for word."""
    covariances = [np.atleast_2d(np.cov(part, rowvar=False)) for part in (first, second)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    means = first.mean(0) - second.mean(0)
    return float(means @ means + np.trace(covariances[0] + covariances[1] - 2 * root))


@pytest.mark.parametrize(("counts", "width"), [((60, 60), 5), ((200, 31), 12), ((30, 500), 12), ((9, 2), 1)])
def test_agrees_with_the_square_root_of_the_product(counts, width):
    first, second = features(counts[0], width, 0), features(counts[1], width, 1, shift=0.4, scale=1.7)
    assert frechet_distance(first, second) == pytest.approx(by_square_root(first, second), rel=1e-6)


@pytest.mark.parametrize("count", [300, 40])
def test_agrees_with_torchmetrics(count):
    """With 40 images of 64 features, covariances are singular, as they are for small sets of images."""
    torch = pytest.importorskip("torch")
    fid = pytest.importorskip("torchmetrics.image.fid")
    first, second = features(count, 64, 0), features(count, 64, 1, shift=0.2, scale=1.3)
    network = torch.nn.Identity()
    network.num_features = 64
    metric = fid.FrechetInceptionDistance(feature=network, normalize=True, input_img_size=(64,)).set_dtype(
        torch.float64
    )
    metric.update(torch.from_numpy(first), real=True)
    metric.update(torch.from_numpy(second), real=False)
    assert frechet_distance(first, second) == pytest.approx(float(metric.compute()), rel=1e-5)


def test_closed_form_of_normal_distributions():
    """N(0, 1) and N(m, s^2) in each of 4 directions: 4 (m^2 + (1 - s)^2)."""
    first, second = features(200_000, 4, 0), features(200_000, 4, 1, shift=0.5, scale=2.0)
    assert frechet_distance(first, second) == pytest.approx(4 * (0.25 + 1.0), rel=0.02)


def test_like_sets_and_order():
    first, second = features(50, 8, 0), features(70, 8, 1, shift=1)
    assert frechet_distance(first, first[::-1]) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first))


def test_single_precision_is_close():
    first, second = features(100, 256, 0), features(100, 256, 1, shift=0.1)
    rounded = frechet_distance(first.astype(np.float32), second.astype(np.float32))
    assert rounded == pytest.approx(frechet_distance(first, second), rel=1e-4)


def test_bad_input():
    with pytest.raises(DataError, match="1 samples and 5 real images; at least 2"):
        frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(DataError, match="the same extractor"):
        frechet_distance(np.zeros((5, 3)), np.zeros((5, 4)))
