import math

import numpy as np
import pytest

from geopos_diffusers.metrics.bootstrap import (
    Interval,
    bootstrap_interval,
    bootstrap_mean_difference,
    bootstrap_means,
    mean,
    weighted_mean,
    wilson_interval,
)


class TestInterval:
    def test_same_seed_same_interval(self):
        values = np.random.default_rng(0).normal(size=50)
        assert bootstrap_interval(mean, values, seed=3) == bootstrap_interval(mean, values, seed=3)
        assert bootstrap_interval(mean, values, seed=3) != bootstrap_interval(mean, values, seed=4)

    def test_width_of_a_share(self):
        # 40 of 100: the standard error is sqrt(0.4 * 0.6 / 100) = 0.049, so the interval is about 0.304 to 0.496.
        interval = bootstrap_interval(mean, np.repeat([1.0, 0.0], [40, 60]), seed=0)
        assert interval.value == pytest.approx(0.4)
        assert interval.low == pytest.approx(0.304, abs=0.015)
        assert interval.high == pytest.approx(0.496, abs=0.015)

    def test_covers_the_truth_about_as_often_as_it_says(self):
        generator = np.random.default_rng(1)
        covered = 0
        for trial in range(200):
            interval = bootstrap_interval(mean, generator.normal(2.0, 1.0, 60), seed=trial, resamples=300)
            covered += interval.low <= 2.0 <= interval.high
        assert 0.88 <= covered / 200 <= 0.99

    def test_samples_are_resampled_independently(self):
        first, second = np.arange(30.0), np.arange(30.0)
        interval = bootstrap_interval(lambda a, b: mean(a) - mean(b), first, second, seed=0)
        assert interval.value == 0
        assert interval.low < -1 < 1 < interval.high

    def test_one_value_says_nothing_of_the_spread(self):
        one, many = np.array([0.9]), np.arange(4.0)
        assert bootstrap_interval(mean, one, seed=0) == Interval(0.9, None, None)
        assert bootstrap_interval(lambda a, b: mean(a) - mean(b), many, one, seed=0) == Interval(0.6, None, None)
        assert bootstrap_mean_difference(one, many, seed=0) == Interval(0.6, None, None)
        columns = np.array([[1.0, math.nan, 3.0], [2.0, 5.0, 3.0], [3.0, math.nan, 3.0]])
        first, second, third = bootstrap_means(columns, seed=0)
        assert first.low < first.value < first.high
        assert (second, third) == (Interval(5.0, None, None), Interval(3.0, 3.0, 3.0))
        weighted = bootstrap_means(columns, np.array([0.0, 2.0, 0.0]), seed=0)
        assert [one.value for one in weighted] == [2.0, 5.0, 3.0]
        assert {one.low for one in weighted} == {None}

    def test_equal_values_give_no_width(self):
        assert bootstrap_interval(mean, np.ones(10), seed=0) == Interval(1.0, 1.0, 1.0)

    def test_nothing_to_estimate_from(self):
        assert bootstrap_interval(mean, np.empty(0), seed=0) == Interval(None, None, None)
        assert bootstrap_interval(mean, np.full(3, np.nan), seed=0) == Interval(None, None, None)

    def test_undefined_resamples_are_left_out(self):
        # A third of the resamples of [nan, 1] hold no value.
        interval = bootstrap_interval(mean, np.array([np.nan, 1.0]), seed=0)
        assert interval == Interval(1.0, 1.0, 1.0)


class TestMeans:
    def test_mean_leaves_out_nan(self):
        assert mean(np.array([1.0, np.nan, 3.0])) == 2.0
        assert math.isnan(mean(np.array([np.nan])))

    def test_weighted_mean(self):
        assert weighted_mean(np.array([[1.0, 3.0], [0.0, 1.0], [np.nan, 9.0]])) == 0.75
        assert math.isnan(weighted_mean(np.array([[1.0, 0.0]])))


class TestBootstrapMeans:
    def test_agrees_with_the_plain_bootstrap(self):
        generator = np.random.default_rng(5)
        columns = generator.normal(size=(300, 3)) + np.arange(3)
        columns[generator.random((300, 3)) < 0.1] = np.nan
        weights = generator.random(300)
        for column, fast in zip(columns.T, bootstrap_means(columns, seed=0), strict=True):
            slow = bootstrap_interval(mean, column, seed=1)
            assert fast.value == pytest.approx(slow.value)
            assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=0.015)
        for column, fast in zip(columns.T, bootstrap_means(columns, weights, seed=0), strict=True):
            slow = bootstrap_interval(weighted_mean, np.stack([column, weights], 1), seed=1)
            assert fast.value == pytest.approx(slow.value)
            assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=0.02)

    def test_nothing_known(self):
        columns = np.array([[np.nan, 1.0], [np.nan, 1.0]])
        assert bootstrap_means(columns, seed=0) == [Interval(None, None, None), Interval(1.0, 1.0, 1.0)]
        assert bootstrap_means(np.empty((0, 2)), seed=0) == [Interval(None, None, None)] * 2

    def test_the_seed_fixes_it(self):
        columns = np.random.default_rng(0).normal(size=(50, 1))
        assert bootstrap_means(columns, seed=3) == bootstrap_means(columns, seed=3)


@pytest.mark.parametrize(("right", "count"), [(0, 10), (3, 10), (10, 10), (250, 1000)])
def test_wilson_interval_agrees_with_scipy(right, count):
    stats = pytest.importorskip("scipy.stats")
    theirs = stats.binomtest(right, count).proportion_ci(method="wilson")
    ours = wilson_interval(right / count, count)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_difference_of_means_agrees_with_the_plain_bootstrap():
    generator = np.random.default_rng(5)
    first, second = generator.normal(size=80), generator.normal(0.5, 2, size=150)
    fast = bootstrap_mean_difference(first, second, seed=0)
    slow = bootstrap_interval(lambda one, other: mean(other) - mean(one), first, second, seed=1)
    assert fast.value == pytest.approx(slow.value)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=0.04)
    assert bootstrap_mean_difference(first, first[:0], seed=0) == Interval(None, None, None)
