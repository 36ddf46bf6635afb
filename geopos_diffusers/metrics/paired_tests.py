"""Tests and intervals of a difference between two shares, and of several tests at once, without scipy."""

import math
from collections.abc import Sequence
from dataclasses import astuple

import numpy as np

from .bootstrap import Interval, wilson_interval

TIE = 1e-7  # relative: probabilities this close count as equal in Fisher's test


def mcnemar_p(first_only: int, second_only: int) -> float:
    """Two-sided p of the exact McNemar test (McNemar, Psychometrika 12, 1947, with the binomial distribution).

    Args:
        first_only, second_only: numbers of pairs in which one side alone has the property. Without a difference
            between the sides, either is as likely.
    """
    count, fewer = first_only + second_only, min(first_only, second_only)
    logs = [_log_choose(count, k) - count * math.log(2) for k in range(fewer + 1)]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def fisher_p(first: int, first_count: int, second: int, second_count: int) -> float:
    """Two-sided p of Fisher's exact test that two independent shares, first / first_count and so on, are equal.

    Tables that are no more probable than the one seen are added up, as R and scipy do.
    """
    total, both = first_count + second_count, first + second
    lowest, highest = max(0, both - second_count), min(both, first_count)
    logs = [
        _log_choose(first_count, k) + _log_choose(second_count, both - k) - _log_choose(total, both)
        for k in range(lowest, highest + 1)
    ]
    probabilities = np.exp(logs)
    seen = probabilities[first - lowest]
    return min(1.0, float(probabilities[probabilities <= seen * (1 + TIE)].sum()))


def paired_share_difference(first: np.ndarray, second: np.ndarray) -> Interval:
    """Share in `second` minus share in `first`, [P] booleans of the same pairs, with its 95% interval.

    The interval is Newcombe's method 10 (Statistics in Medicine 17, 1998, 2635): Wilson's intervals of both shares,
    joined with their correlation. It has a width where all values are equal, unlike a bootstrap's.
    """
    if len(first) == 0:
        return Interval(None, None, None)
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    first_only, second_only = int((first & ~second).sum()), int((~first & second).sum())
    return _newcombe(
        both + first_only,
        len(first),
        both + second_only,
        len(second),
        _corrected_phi(both, first_only, second_only, neither),
    )


def share_difference(first: np.ndarray, second: np.ndarray) -> Interval:
    """Share in `second` [M] minus share in `first` [N], booleans of independent images, with its 95% interval.

    Newcombe's method 10 for independent shares (Statistics in Medicine 17, 1998, 873).
    """
    if len(first) == 0 or len(second) == 0:
        return Interval(None, None, None)
    return _newcombe(int(first.sum()), len(first), int(second.sum()), len(second), 0.0)


def mean_p(differences: np.ndarray) -> float | None:
    """Two-sided p of Student's t that the mean of [P] paired differences is 0; None of fewer than two."""
    count = len(differences)
    if count < 2:
        return None
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    return _t_p(float(differences.mean()), error, count - 1)


def welch_p(first: np.ndarray, second: np.ndarray) -> float | None:
    """Two-sided p of Welch's t that the means of independent [N] and [M] values are equal; None of fewer than two.

    Degrees of freedom are rounded down, which is conservative.
    """
    if min(len(first), len(second)) < 2:
        return None
    parts = [float(values.var(ddof=1)) / len(values) for values in (first, second)]
    total = sum(parts)
    below = sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
    freedom = max(1, int(total**2 / below)) if below > 0 else 1
    return _t_p(float(second.mean() - first.mean()), math.sqrt(total), freedom)


def student_p(t: float, freedom: int) -> float:
    """P(|T| > |t|) of Student's t with a whole number of degrees of freedom, exact to about 1e-14.

    The finite series of Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan(abs(t) / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    # The k-th term is the one before it times cos^2 (2k - 1) / (2k), or 2k / (2k + 1) for an odd number.
    k = np.arange(1, (freedom - odd) // 2 if freedom > 1 else 1)
    factors = (2 * k / (2 * k + 1) if odd else (2 * k - 1) / (2 * k)) * cosine**2
    series = 1.0 + float(np.cumprod(factors).sum())
    if odd:
        within = 2 / math.pi * (angle + (sine * cosine * series if freedom > 1 else 0.0))
    else:
        within = sine * series
    return min(1.0, max(0.0, 1.0 - within))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979); None stays None."""
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[index] = largest
    return corrected


def _t_p(difference: float, error: float, freedom: int) -> float:
    if error == 0:
        return 1.0 if difference == 0 else 0.0
    return student_p(difference / error, freedom)


def _log_choose(count: int, chosen: int) -> float:
    return math.lgamma(count + 1) - math.lgamma(chosen + 1) - math.lgamma(count - chosen + 1)


def _corrected_phi(both: int, first_only: int, second_only: int, neither: int) -> float:
    """The correlation of two paired properties, less Newcombe's correction where it is positive; 0 if undefined."""
    rows = (both + first_only) * (second_only + neither)
    columns = (both + second_only) * (first_only + neither)
    if rows * columns == 0:
        return 0.0
    product = float(both * neither - first_only * second_only)
    if product > 0:
        product = max(0.0, product - (both + first_only + second_only + neither) / 2)
    return product / math.sqrt(rows * columns)


def _newcombe(first: int, first_count: int, second: int, second_count: int, phi: float) -> Interval:
    """second / second_count minus first / first_count, whose correlation is phi."""
    before, before_low, before_high = astuple(wilson_interval(first / first_count, first_count))
    after, after_low, after_high = astuple(wilson_interval(second / second_count, second_count))
    below = _joined(after - after_low, before_high - before, phi)
    above = _joined(after_high - after, before - before_low, phi)
    return Interval(after - before, after - before - below, after - before + above)


def _joined(first: float, second: float, phi: float) -> float:
    return math.sqrt(max(0.0, first**2 - 2 * phi * first * second + second**2))
