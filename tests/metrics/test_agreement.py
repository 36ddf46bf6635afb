import numpy as np
import pytest

from geopos_diffusers.metrics.agreement import cohen_kappa, rank_correlation


class TestCohenKappa:
    def test_by_hand(self):
        # 50 items: 20 both yes, 15 both no, 5 and 10 in dispute: (0.7 - 0.5) / (1 - 0.5), with rates of 0.5 and 0.6.
        first = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
        second = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
        assert cohen_kappa(first, second) == pytest.approx(0.4)

    def test_ends(self):
        labels = np.array([0, 1, 2, 0])
        assert cohen_kappa(labels, labels) == 1
        assert cohen_kappa(np.array([0, 1]), np.array([1, 0])) == -1

    def test_chance(self):
        generator = np.random.default_rng(0)
        first, second = generator.integers(0, 6, (2, 20000))
        assert abs(cohen_kappa(first, second)) < 0.02

    def test_one_label_says_nothing(self):
        assert np.isnan(cohen_kappa(np.ones(5), np.ones(5)))
        assert np.isnan(cohen_kappa(np.array([]), np.array([])))


class TestRankCorrelation:
    def test_against_scipy(self):
        stats = pytest.importorskip("scipy.stats")
        generator = np.random.default_rng(1)
        first = generator.integers(0, 8, 200).astype(float)  # with many equal values
        second = first + generator.normal(0, 3, 200)
        assert rank_correlation(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)

    def test_any_rising_function_is_a_full_correlation(self):
        values = np.linspace(0, 3, 20)
        assert rank_correlation(values, np.exp(values)) == pytest.approx(1)

    def test_nothing_to_say(self):
        assert np.isnan(rank_correlation(np.ones(5), np.arange(5)))
        assert np.isnan(rank_correlation(np.arange(2), np.arange(2)))
