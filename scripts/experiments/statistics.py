"""Estimates over seeds, with 95% intervals and p values of Student's t.

Few seeds need them: from three seeds a percentile bootstrap excludes the true value in about a quarter of all cases.
`geopos_diffusers.metrics.bootstrap` is for many images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from scipy.stats import t as student_t

from geopos_diffusers.metrics.bootstrap import CONFIDENCE, Interval
from geopos_diffusers.metrics.paired_tests import holm as holm

UPPER_TAIL = (1 + CONFIDENCE) / 2


@dataclass(frozen=True)
class Estimate(Interval):
    """An estimate over seeds.

    value, low, high: as of `Interval`; low and high are None of a single seed.
    p: two-sided, of no effect: mean or difference 0, ratio 1; None of a single seed.
    count: of seeds; of the smaller group where two are compared that are not paired.
    """

    p: float | None
    count: int


def mean_estimate(values: Sequence[float], null: float = 0.0) -> Estimate:
    """Mean of one value a seed; p is of the mean `null`."""
    values = np.asarray(values, float)
    if len(values) == 0:
        return Estimate(None, None, None, None, 0)
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return _estimate(float(values.mean()), error, len(values) - 1, len(values), null)


def difference_estimate(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Mean of `first` minus `second`, paired: the same seeds in the same order."""
    return mean_estimate(np.subtract(first, second))


def ratio_estimate(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Geometric mean of the ratios of `first` to `second`, paired, by the t of the logarithms.

    All None but the count where a value is not positive, as such ratios have no logarithm.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if not ((first > 0).all() and (second > 0).all()):
        return Estimate(None, None, None, None, len(first))
    return exponential(mean_estimate(np.log(first) - np.log(second)))


def unpaired_difference_estimate(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Mean of `first` minus that of `second`, of different seeds, with Welch's t."""
    first, second = np.asarray(first, float), np.asarray(second, float)
    count = min(len(first), len(second))
    if count == 0:
        return Estimate(None, None, None, None, 0)
    value = float(first.mean() - second.mean())
    if count == 1:
        return Estimate(value, None, None, None, 1)
    parts = [float(values.var(ddof=1)) / len(values) for values in (first, second)]
    total = sum(parts)
    freedom = (
        total**2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
        if total > 0
        else count - 1
    )
    return _estimate(value, math.sqrt(total), freedom, count)


def jackknife_estimate(statistic: Callable[[np.ndarray], float], rows: np.ndarray) -> Estimate:
    """`statistic` of rows [S, ...], one a seed, with the t of the jackknife's standard error.

    For statistics that are no means, such as the logarithm of a ratio of deviations (Miller, Biometrika 61, 1974).
    There is no interval where it is not finite for S - 1 rows, and no value where it is not for S.
    """
    count = len(rows)
    value = float(statistic(rows)) if count else math.nan
    if not math.isfinite(value):
        return Estimate(None, None, None, None, count)
    without = np.array([statistic(np.delete(rows, index, axis=0)) for index in range(count)])
    if not np.isfinite(without).all():
        return Estimate(value, None, None, None, count)
    error = math.sqrt((count - 1) * float(without.var()))
    return _estimate(value, error, count - 1, count)


def area_under_curve(negative: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive's score [N] is above a negative's [M], ties counting half.

    Mann and Whitney's statistic as a share. nan without positives or without negatives.
    """
    above, below = len(positive), len(negative)
    if not above or not below:
        return math.nan
    ranks = rankdata(np.concatenate([negative, positive]))[below:]
    return float((ranks.sum() - above * (above + 1) / 2) / (above * below))


def exponential(estimate: Estimate) -> Estimate:
    """The estimate of exp(x), of which no effect is 1, from that of x."""
    ends = (estimate.value, estimate.low, estimate.high)
    return Estimate(*(None if end is None else math.exp(end) for end in ends), estimate.p, estimate.count)


def _estimate(value: float, error: float, freedom: float, count: int, null: float = 0.0) -> Estimate:
    """error: standard error of the value. freedom: degrees of freedom of t; below 1 there is no interval."""
    if freedom < 1:
        return Estimate(value, None, None, None, count)
    if error == 0:
        return Estimate(value, value, value, 1.0 if value == null else 0.0, count)
    reach = float(student_t.ppf(UPPER_TAIL, freedom)) * error
    p = 2 * float(student_t.sf(abs(value - null) / error, freedom))
    return Estimate(value, value - reach, value + reach, p, count)
