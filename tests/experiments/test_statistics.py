"""The estimates beside scipy's own, and their coverage when there is no effect."""

import math

import numpy as np
import pytest
from experiments.statistics import (
    difference_estimate,
    exponential,
    holm,
    jackknife_estimate,
    mean_estimate,
    ratio_estimate,
    unpaired_difference_estimate,
)
from scipy import stats

from geopos_diffusers.metrics.bootstrap import bootstrap_interval, mean

REPEATS = 4000
FIRST, SECOND = np.array([1.0, 2.5, 2.0, 4.0, 3.5]), np.array([0.5, 2.0, 2.5, 2.0, 1.0])


def ends(estimate):
    return estimate.low, estimate.high, estimate.p


def reference(result):
    interval = result.confidence_interval(0.95)
    return interval.low, interval.high, result.pvalue


def test_estimates_are_those_of_scipy():
    assert ends(mean_estimate(FIRST, null=2.0))[:2] == pytest.approx(reference(stats.ttest_1samp(FIRST, 2.0))[:2])
    assert mean_estimate(FIRST, null=2.0).p == pytest.approx(stats.ttest_1samp(FIRST, 2.0).pvalue)
    assert ends(difference_estimate(FIRST, SECOND)) == pytest.approx(reference(stats.ttest_rel(FIRST, SECOND)))
    welch = stats.ttest_ind(FIRST, SECOND[:4], equal_var=False)
    assert ends(unpaired_difference_estimate(FIRST, SECOND[:4])) == pytest.approx(reference(welch))
    assert unpaired_difference_estimate(FIRST, SECOND[:4]).count == 4
    low, high, p = reference(stats.ttest_rel(np.log(FIRST), np.log(SECOND)))
    assert ends(ratio_estimate(FIRST, SECOND)) == pytest.approx((math.exp(low), math.exp(high), p))
    assert ratio_estimate(FIRST, SECOND).value == pytest.approx(stats.gmean(FIRST / SECOND))


def test_one_seed_has_no_interval_and_none_nothing():
    assert ends(mean_estimate([2.0])) == (None, None, None)
    assert (ratio_estimate([2.0], [4.0]).value, ratio_estimate([2.0], [4.0]).low) == (pytest.approx(0.5), None)
    assert unpaired_difference_estimate([2.0], [1.0, 1.5]).low is None
    assert (mean_estimate([]).value, mean_estimate([]).count) == (None, 0)


def test_equal_values_have_an_interval_without_width():
    assert ends(mean_estimate([2.0, 2.0, 2.0])) == (2.0, 2.0, 0.0)
    assert ends(difference_estimate([2.0, 3.0], [2.0, 3.0])) == (0.0, 0.0, 1.0)


def test_ratios_of_scores_that_are_zero_are_not_estimated():
    assert ratio_estimate([1.0, 0.0, 2.0], [1.0, 1.0, 1.0]) == ratio_estimate([1.0, 1.0, 1.0], [0.0, 1.0, 1.0])
    assert ratio_estimate([1.0, 0.0, 2.0], [1.0, 1.0, 1.0]).value is None


def test_holm_by_hand():
    assert holm([0.01, 0.04, None, 0.03]) == [pytest.approx(0.03), pytest.approx(0.06), None, pytest.approx(0.06)]
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def no_effect(count, noise):
    """Scores [REPEATS, 2, count] of two variants that differ by chance alone."""
    drawn = np.random.default_rng(count).normal(size=(REPEATS, 2, count))
    return 1 + 0.1 * drawn if noise == "normal" else np.exp(0.5 * drawn)


@pytest.mark.parametrize("noise", ["normal", "log-normal"])
@pytest.mark.parametrize("count", [3, 5, 10])
def test_ratios_exclude_one_in_five_per_cent_of_the_cases_without_an_effect(count, noise):
    estimates = [ratio_estimate(first, second) for first, second in no_effect(count, noise)]
    below = np.mean([estimate.high < 1 for estimate in estimates])
    above = np.mean([estimate.low > 1 for estimate in estimates])
    assert 0.015 < below < 0.035
    assert 0.015 < above < 0.035
    assert np.mean([estimate.p < 0.05 for estimate in estimates]) == pytest.approx(below + above)


def test_differences_exclude_zero_in_five_per_cent_of_the_cases_without_an_effect():
    for count in (3, 5, 10):
        excluded = [
            not (e.low <= 0 <= e.high) for e in (difference_estimate(*pair) for pair in no_effect(count, "normal"))
        ]
        assert 0.03 < np.mean(excluded) < 0.07


def test_the_percentile_bootstrap_of_three_seeds_excludes_one_far_too_often():
    """Why it is not used for seeds: 11 to 13% a side instead of 2.5%."""
    intervals = [
        bootstrap_interval(mean, np.log(first / second), seed=0, resamples=500)
        for first, second in no_effect(3, "normal")[:1000]
    ]
    assert np.mean([interval.low > 0 for interval in intervals]) > 0.08
    assert np.mean([interval.high < 0 for interval in intervals]) > 0.08


@pytest.mark.parametrize("count", [5, 10])
def test_jackknife_of_a_ratio_of_deviations_has_about_its_coverage(count):
    def log_ratio(rows):
        deviations = rows.std(0, ddof=1)
        return float(np.log(deviations[0] / deviations[1]))

    estimates = [exponential(jackknife_estimate(log_ratio, pair.T)) for pair in no_effect(count, "normal")[:1500]]
    excluded = np.mean([not (estimate.low <= 1 <= estimate.high) for estimate in estimates])
    assert 0.02 < excluded < 0.09


def test_jackknife_of_a_mean_is_the_mean():
    assert ends(jackknife_estimate(lambda rows: float(rows.mean()), FIRST)) == pytest.approx(ends(mean_estimate(FIRST)))
    assert jackknife_estimate(lambda rows: math.nan, FIRST).value is None
