import numpy as np
import pytest

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.kid import half_subsets, kid, polynomial_kernel, unbiased_mmd2


def features(count: int, shift: float = 0.0, seed: int = 0, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)) + shift


class TestUnbiasedEstimate:
    def test_by_hand(self):
        # One feature, k(a, b) = (ab + 1)^3. Within {0, 1}: k(0, 1) = 1. Within {1, 2}: k(1, 2) = 27.
        # Between: k(0, 1) = k(0, 2) = 1, k(1, 1) = 8, k(1, 2) = 27, mean 37 / 4. So 1 + 27 - 2 * 37 / 4 = 9.5.
        assert unbiased_mmd2(np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])) == pytest.approx(9.5)

    def test_kernel_is_scaled_by_the_number_of_features(self):
        assert polynomial_kernel(np.ones((1, 4)), 2 * np.ones((1, 4))) == pytest.approx(27.0)

    def test_agrees_with_torchmetrics(self):
        torch = pytest.importorskip("torch")
        image = pytest.importorskip("torchmetrics.image.kid")
        first, second = features(20), features(20, 0.3, seed=1)
        metric = image.KernelInceptionDistance(feature=torch.nn.Identity(), subsets=1, subset_size=20, normalize=True)
        metric.real_features.append(torch.from_numpy(first))
        metric.fake_features.append(torch.from_numpy(second))
        theirs, _ = metric.compute()
        assert unbiased_mmd2(first, second) == pytest.approx(float(theirs), rel=1e-5)

    def test_symmetric(self):
        first, second = features(20), features(30, 0.5, seed=1)
        assert unbiased_mmd2(first, second) == pytest.approx(unbiased_mmd2(second, first))


class TestDistance:
    def test_near_zero_for_one_distribution(self):
        distance = kid(features(200), features(200, seed=1), seed=0)
        assert abs(distance.value) < 0.05
        assert distance.low <= 0 <= distance.high

    def test_grows_with_the_shift(self):
        reference = features(100, seed=9)
        values = [kid(features(100, shift), reference, seed=0).value for shift in (0.0, 0.3, 0.6, 1.2)]
        assert values == sorted(values)
        assert values[-1] > 10 * abs(values[0])

    def test_grows_with_collapse(self):
        reference = features(120, 0.5, seed=5)
        modes = features(120, 0.5)
        values = [kid(modes[np.arange(120) % kept], reference, seed=0).value for kept in (120, 30, 8, 2)]
        assert values == sorted(values)
        assert values[-1] > values[0] + 0.1

    def test_interval_holds_the_value_and_shrinks_with_more_images(self):
        few = kid(features(40, 0.4), features(40, seed=1), seed=0)
        many = kid(features(640, 0.4), features(640, seed=1), seed=0)
        assert few.low < few.value < few.high
        assert many.high - many.low < (few.high - few.low) / 2

    def test_interval_covers_the_truth(self):
        truth = kid(features(2000, 0.4, seed=90), features(2000, seed=91), seed=0).value
        covered = 0
        for trial in range(60):
            interval = kid(features(40, 0.4, seed=2 * trial), features(40, seed=2 * trial + 1), seed=trial)
            covered += interval.low <= truth <= interval.high
        assert covered >= 50

    def test_same_seed_same_result(self):
        assert kid(features(20), features(20, 1.0), seed=1) == kid(features(20), features(20, 1.0), seed=1)

    def test_halves(self):
        chosen = half_subsets(7, np.random.default_rng(0))
        assert (chosen.sum(1) == 3).all()
        assert 0.35 < chosen.mean(0).min() < chosen.mean(0).max() < 0.52


class TestBadInput:
    def test_too_few(self):
        with pytest.raises(DataError, match="3 evaluated images"):
            kid(features(3), features(9), seed=0)

    def test_features_of_two_networks(self):
        with pytest.raises(DataError, match="16 and 8 values"):
            kid(features(9), features(9, width=8), seed=0)
