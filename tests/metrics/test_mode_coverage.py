import numpy as np
import pytest

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.mode_coverage import (
    compare_counts,
    fit_bins,
    jensen_shannon_divergence,
    mode_coverage,
    squared_distances,
)

MODES = 10


def modes(which: list[int], count: int, seed: int = 0) -> np.ndarray:
    """Points about corners of a simplex, in turn: mode m is far from all others."""
    centers = 20 * np.eye(MODES)[np.array(which)[np.arange(count) % len(which)]]
    return centers + np.random.default_rng(seed).normal(size=(count, MODES))


class TestByHand:
    def test_divergence(self):
        # Half of the mass is shared: middle (1/4, 1/2, 1/4). (2 * (1/2) ln 2) / (2 ln 2) = 1/2 bit.
        assert jensen_shannon_divergence(np.array([0.5, 0.5, 0]), np.array([0, 0.5, 0.5])) == pytest.approx(0.5)
        assert jensen_shannon_divergence(np.array([1.0, 0]), np.array([0, 1.0])) == 1
        assert jensen_shannon_divergence(np.array([0.3, 0.7]), np.array([0.3, 0.7])) == 0

    def test_divergence_agrees_with_scipy(self):
        distance = pytest.importorskip("scipy.spatial.distance")
        first, second = np.random.default_rng(0).dirichlet(np.ones(9), size=2)
        theirs = distance.jensenshannon(first, second, base=2) ** 2
        assert jensen_shannon_divergence(first, second) == pytest.approx(theirs)

    def test_shares_of_bins(self):
        # 100 and 100 images; pooled shares 0.175, 0.2, 0.625. z = -0.25 / 0.0537 = -4.7; 0; 0.25 / 0.0685 = 3.7.
        result = compare_counts(np.array([5, 20, 75]), np.array([30, 20, 50]))
        assert result.covered == pytest.approx(2 / 3)
        assert result.different == pytest.approx(2 / 3)
        # z = -0.06 / 0.0605 = -0.99 and 0.99: no difference.
        assert compare_counts(np.array([24, 76]), np.array([30, 70])).different == 0

    def test_empty_bin_is_never_covered(self):
        # z = -0.02 / 0.014 = -1.4: too few images for a significant difference.
        result = compare_counts(np.array([0, 100]), np.array([2, 98]))
        assert (result.covered, result.different) == (0.5, 0)

    def test_distances(self):
        assert squared_distances(np.array([[0.0, 0], [3, 4]]), np.array([[0.0, 0], [3, 0]])).tolist() == [
            [0, 9],
            [25, 16],
        ]


class TestCollapse:
    # With nine of ten modes left, the others' shares grow by a ninth only, which 400 images do not tell from chance.
    @pytest.mark.parametrize(("kept", "different"), [(1, 1), (3, 1), (5, 1), (9, 0.1), (10, 0)])
    def test_kept_modes_are_the_covered_share(self, kept, different):
        bins = fit_bins(modes(list(range(MODES)), 500), MODES, seed=3)
        result = mode_coverage(modes(list(range(kept)), 400, seed=1), bins)
        assert result.covered == pytest.approx(kept / MODES)
        assert result.different == pytest.approx(different)

    def test_divergence_grows_with_collapse(self):
        bins = fit_bins(modes(list(range(MODES)), 500), MODES, seed=3)
        values = [mode_coverage(modes(list(range(kept)), 400, seed=1), bins).jensen_shannon for kept in (10, 8, 4, 1)]
        assert values == sorted(values)
        assert values[0] < 1e-3
        # All of the samples in one bin of ten: p = 1 and q = 0.1, so 0.7584 bits.
        assert values[-1] == pytest.approx(0.7584, abs=1e-3)

    def test_real_images_cover_nearly_all(self):
        real = np.random.default_rng(0).normal(size=(2000, 8))
        bins = fit_bins(real[:1000], 40, seed=0)
        assert mode_coverage(real[1000:], bins).covered > 0.9


class TestBins:
    def test_separate_modes_are_found(self):
        for seed in range(5):
            assert fit_bins(modes(list(range(MODES)), 500), MODES, seed).real_counts.tolist() == [50] * MODES

    def test_same_seed_same_bins(self):
        real = np.random.default_rng(0).normal(size=(300, 4))
        first, second = (fit_bins(real, 20, seed=1) for _ in range(2))
        assert (first.centers == second.centers).all()
        assert first.real_counts.sum() == 300
        assert first.real_counts.min() > 0

    def test_equal_images_share_a_bin(self):
        assert fit_bins(np.repeat([[1.0, 0], [0, 1]], 15, axis=0), 3, seed=0).real_counts.tolist() == [15, 15]


class TestBadInput:
    def test_too_few_real_images(self):
        with pytest.raises(DataError, match="40 images for 10 bins"):
            fit_bins(np.zeros((40, 2)), 10, seed=0)

    def test_samples_that_do_not_fit(self):
        bins = fit_bins(modes(list(range(MODES)), 500), MODES, seed=0)
        for samples in (np.zeros((4, 3)), np.zeros((0, MODES))):
            with pytest.raises(DataError, match=r"\[1 or more, 10\] is needed"):
                mode_coverage(samples, bins)
