"""Tests and intervals beside scipy's own, and how often they err where the truth is known."""

from dataclasses import astuple

import numpy as np
import pytest
from scipy import stats

from geopos_diffusers.metrics.bootstrap import Interval, wilson_interval
from geopos_diffusers.metrics.paired_tests import (
    fisher_p,
    holm,
    mcnemar_p,
    mean_p,
    paired_share_difference,
    share_difference,
    student_p,
    welch_p,
)

REPEATS = 3000


@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (0, 6), (3, 9), (50, 50), (400, 460), (4000, 4200), (0, 9000)])
def test_mcnemar_is_the_binomial_test_of_scipy(counts):
    first, second = counts
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar_p(first, second) == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert mcnemar_p(second, first) == mcnemar_p(first, second)


@pytest.mark.parametrize("table", [(0, 5, 5, 5), (3, 20, 11, 17), (40, 400, 61, 380), (0, 4, 0, 6), (5, 5, 6, 6)])
def test_fisher_is_that_of_scipy(table):
    first, first_count, second, second_count = table
    counts = [[first, first_count - first], [second, second_count - second]]
    assert fisher_p(*table) == pytest.approx(stats.fisher_exact(counts).pvalue, rel=1e-9)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 10, 31, 200, 9999])
def test_student_is_that_of_scipy(freedom):
    for t in (0.0, 0.3, -1.96, 2.5, 7.0):
        assert student_p(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), abs=1e-12)


def test_t_tests_are_those_of_scipy():
    first, second = np.random.default_rng(0).normal(size=(2, 40))
    assert mean_p(second - first) == pytest.approx(stats.ttest_rel(second, first).pvalue, abs=1e-12)
    result = stats.ttest_ind(second[:13], 3 * first, equal_var=False)
    rounded = 2 * stats.t.sf(abs(result.statistic), int(result.df))
    assert welch_p(3 * first, second[:13]) == pytest.approx(rounded, abs=1e-12)


def test_too_few_and_equal_values():
    assert mean_p(np.array([1.0])) is None
    assert welch_p(np.array([1.0]), np.array([1.0, 2.0])) is None
    assert mean_p(np.zeros(3)) == 1.0
    assert mean_p(np.ones(3)) == 0.0
    assert welch_p(np.ones(3), np.ones(4)) == 1.0
    nothing = np.zeros(0, dtype=bool)
    assert paired_share_difference(nothing, nothing) == share_difference(nothing, nothing) == Interval(None, None, None)


@pytest.mark.parametrize(("count", "total"), [(0, 7), (7, 7), (3, 50), (412, 1000)])
def test_wilson_is_that_of_scipy(count, total):
    interval = stats.binomtest(count, total).proportion_ci(method="wilson")
    assert astuple(wilson_interval(count / total, total))[1:] == pytest.approx((interval.low, interval.high), abs=1e-12)


def paired(generator, probabilities, count):
    """[REPEATS, 2, count] booleans; probabilities: of both, the first only, the second only and neither."""
    outcome = generator.choice(4, size=(REPEATS, count), p=probabilities)
    return np.stack([outcome <= 1, (outcome == 0) | (outcome == 2)], axis=1)


# Nearly all right, independent sides, sides that mostly agree, and a large difference.
SIDES = [(0.94, 0.03, 0.02, 0.01), (0.25, 0.25, 0.25, 0.25), (0.6, 0.05, 0.1, 0.25), (0.2, 0.02, 0.5, 0.28)]


@pytest.mark.parametrize("probabilities", SIDES)
@pytest.mark.parametrize("count", [20, 100])
def test_paired_intervals_hold_the_truth(probabilities, count):
    drawn = paired(np.random.default_rng(count), probabilities, count)
    intervals = [paired_share_difference(first, second) for first, second in drawn]
    truth = probabilities[2] - probabilities[1]
    held = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    # With less than one expected pair that differs, an interval that has a width cannot but hold a small truth.
    assert 0.935 < held < (0.995 if count * probabilities[1] > 1 else 1.001)
    assert np.mean([interval.value for interval in intervals]) == pytest.approx(truth, abs=0.01)


@pytest.mark.parametrize(
    ("cells", "low", "high"), [((36, 2, 12, 0), 0.0569, 0.3404), ((20, 2, 12, 16), 0.0562, 0.3292)]
)
def test_paired_intervals_are_those_of_newcombe(cells, low, high):
    """Method 10 of the table of Newcombe, Statistics in Medicine 17, 1998, 2635."""
    first = np.repeat([True, True, False, False], cells)
    second = np.repeat([True, False, True, False], cells)
    interval = paired_share_difference(first, second)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_pairing_narrows_the_interval():
    first = np.arange(100) % 2 == 0
    second = first.copy()
    second[:6:2] = False
    apart, together = share_difference(first, second), paired_share_difference(first, second)
    assert together.value == apart.value == pytest.approx(-0.03)
    assert together.high - together.low < 0.4 * (apart.high - apart.low)


def test_equal_shares_have_an_interval_with_a_width():
    interval = paired_share_difference(np.ones(50, dtype=bool), np.ones(50, dtype=bool))
    assert interval.low < -0.03 < interval.value == 0 < 0.03 < interval.high


def test_independent_intervals_hold_the_truth():
    generator = np.random.default_rng(3)
    first, second = generator.random((REPEATS, 40)) < 0.9, generator.random((REPEATS, 70)) < 0.8
    intervals = [share_difference(one, other) for one, other in zip(first, second, strict=True)]
    assert 0.935 < np.mean([interval.low <= -0.1 <= interval.high for interval in intervals]) < 0.98


def test_false_positives_are_at_most_one_in_twenty():
    generator = np.random.default_rng(4)
    shares = paired(generator, (0.5, 0.15, 0.15, 0.2), 80)
    p = [mcnemar_p(int((a & ~b).sum()), int((b & ~a).sum())) for a, b in shares]
    assert 0.015 < np.mean(np.array(p) < 0.05) < 0.055  # exact, so conservative
    means = [mean_p(values) for values in generator.normal(size=(REPEATS, 12))]
    assert 0.038 < np.mean(np.array(means) < 0.05) < 0.062


def test_holm_by_hand():
    assert holm([0.01, 0.04, None, 0.03]) == [pytest.approx(0.03), pytest.approx(0.06), None, pytest.approx(0.06)]
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_rate_of_any_false_positive():
    tests = np.random.default_rng(5).random((REPEATS, 8))
    assert 0.035 < np.mean([min(holm(row)) < 0.05 for row in tests]) < 0.06
