"""Percentile bootstrap intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000
LEAST_VALUES = 2  # of an interval
RESAMPLES_AT_ONCE = 100  # bounds the memory of many images
NORMAL_95 = 1.959963984540054  # 97.5% of a normal distribution lie below


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its 95% interval.

    All are None where there is nothing to estimate from; the ends alone, where one value says nothing of the spread.
    """

    value: float | None
    low: float | None
    high: float | None


def bootstrap_interval(
    statistic: Callable[..., float], *samples: np.ndarray, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """95% percentile bootstrap interval of `statistic(*samples)`.

    Args:
        statistic: takes the samples, resampled, and returns a number; nan where it is not defined, such as a ratio to
            zero. Such resamples are left out.
        samples: one or more arrays; each is resampled along its first axis, independently of the others. Values that
            belong together (a value and its weight) are columns of one array.
        seed: of the resampling; the same seed gives the same interval.

    The interval has no width where all values are equal: of n images with a hand in every one, the true rate can
    still be as low as about 1 - 3/n.
    """
    if any(len(sample) == 0 for sample in samples):
        return Interval(None, None, None)
    value = float(statistic(*samples))
    if any(len(sample) < LEAST_VALUES for sample in samples):
        return Interval(value, None, None) if math.isfinite(value) else Interval(None, None, None)
    generator = np.random.default_rng(seed)
    values = np.empty(resamples)
    for index in range(resamples):
        drawn = [sample[generator.integers(0, len(sample), len(sample))] for sample in samples]
        values[index] = statistic(*drawn)
    values = values[np.isfinite(values)]
    if not math.isfinite(value) or len(values) == 0:
        return Interval(None, None, None)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def wilson_interval(share: float, count: int) -> Interval:
    """95% interval of a share of `count` independent yes-or-no results (Wilson, JASA 22, 1927); never without width."""
    squared = NORMAL_95**2 / count
    middle = (share + squared / 2) / (1 + squared)
    reach = math.sqrt(squared * (share * (1 - share) + squared / 4)) / (1 + squared)
    return Interval(share, min(max(middle - reach, 0.0), share), max(min(middle + reach, 1.0), share))


def mean(values: np.ndarray) -> float:
    """Mean of [N] values without the nan ones; nan if none is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def weighted_mean(rows: np.ndarray) -> float:
    """Mean of the first column of [N, 2] rows, weighted by the second; nan values are left out."""
    values, weights = rows[:, 0], rows[:, 1]
    known = ~np.isnan(values)
    total = weights[known].sum()
    return float((values[known] * weights[known]).sum() / total) if total > 0 else math.nan


def bootstrap_mean_difference(first: np.ndarray, second: np.ndarray, *, seed: int) -> Interval:
    """Mean of the second values [M] less that of the first [N] with its 95% interval; both sides are resampled.

    It is `bootstrap_interval` of the difference of two means, by matrix products. Values are finite.
    """
    if not (len(first) and len(second)):
        return Interval(None, None, None)
    if min(len(first), len(second)) < LEAST_VALUES:
        return Interval(float(second.mean() - first.mean()), None, None)
    generator = np.random.default_rng(seed)
    means = []
    for values in (first, second):
        drawn = generator.multinomial(len(values), np.full(len(values), 1 / len(values)), RESAMPLES)
        means.append(drawn @ values / len(values))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means[1] - means[0], [tail, 1 - tail])
    return Interval(float(second.mean() - first.mean()), float(low), float(high))


def bootstrap_means(
    columns: np.ndarray, weights: np.ndarray | None = None, *, seed: int, resamples: int = RESAMPLES
) -> list[Interval]:
    """95% percentile bootstrap intervals of the means of K columns of the same N images, all from the same resamples.

    It is `bootstrap_interval` of `mean` or `weighted_mean` for each column, by matrix products: for thousands of images
    and dozens of measures it takes a second where the other takes minutes.

    Args:
        columns: [N, K]; nan where a value is not known, which is left out of its column's mean.
        weights: [N] of the images, resampled with them.

    Returns:
        K intervals; one of None where a column has no known value.
    """
    count, width = columns.shape
    known = ~np.isnan(columns)
    weights = np.ones(count) if weights is None else weights
    counted = (known & (weights > 0)[:, None]).sum(0)
    totals = np.concatenate([np.where(known, columns, 0.0), known], axis=1) * weights[:, None]
    if count == 0:
        return [Interval(None, None, None)] * width
    generator = np.random.default_rng(seed)
    sums = [totals.sum(0)]
    for start in range(0, resamples, RESAMPLES_AT_ONCE):
        # How often each image is drawn: N draws out of N, as a multinomial count.
        drawn = generator.multinomial(count, np.full(count, 1 / count), min(RESAMPLES_AT_ONCE, resamples - start))
        sums.extend(drawn.astype(np.float64) @ totals)
    table = np.array(sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = table[:, :width] / table[:, width:]
    tail = (1 - CONFIDENCE) / 2
    intervals = []
    for (value, *drawn), enough in zip(means.T, counted >= LEAST_VALUES, strict=True):
        if not math.isfinite(value):
            intervals.append(Interval(None, None, None))
            continue
        if not enough:
            intervals.append(Interval(float(value), None, None))
            continue
        low, high = np.quantile([mean for mean in drawn if math.isfinite(mean)], [tail, 1 - tail])
        intervals.append(Interval(float(value), float(low), float(high)))
    return intervals
