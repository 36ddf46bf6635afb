"""Controls of the scores of `quality`, on features: do they rise with what is wrong, and keep still when nothing is?"""

import math
from collections.abc import Sequence

import numpy as np

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.bootstrap import Interval
from geopos_diffusers.metrics.quality import quality_scores
from geopos_diffusers.metrics.quality_measures import FEATURE_SCORES

from .controls import SHARES


def mixed_set(good: np.ndarray, defective: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Features [N, D] of which `share` in [0, 1] are drawn from `defective` [M, D] and the others from `good` [N, D].

    Nothing is drawn twice, and a larger share holds all defective ones of a smaller share with the same seed.

    Raises:
        DataError: fewer defective ones than the share needs.
    """
    replaced = round(share * len(good))
    if replaced > len(defective):
        raise DataError(f"a share of {share} of {len(good)} needs {replaced} defective images, not {len(defective)}")
    generator = np.random.default_rng(seed)
    kept, added = generator.permutation(len(good))[replaced:], generator.permutation(len(defective))[:replaced]
    return np.concatenate([good[kept], defective[added]])


def scores_by_share(
    good: np.ndarray, defective: np.ndarray, reference: np.ndarray, seed: int, shares: Sequence[float] = SHARES
) -> dict[str, list[float | None]]:
    """By name of score, its values for `mixed_set` of each share. One that tells quality is monotone in the share."""
    rows = [
        quality_scores(mixed_set(good, defective, share, seed), reference, seed, intervals=False) for share in shares
    ]
    return {name: [row[name].value for row in rows] for name in FEATURE_SCORES}


def score_difference(first: Interval, second: Interval) -> Interval:
    """Second less first of two scores with intervals, with the 95% interval of the difference (Zou and Donner, 2008).

    Two sets scored beside one reference have its chance in common, which cancels: the interval is then too wide.
    """
    if None in (first.value, first.low, first.high, second.value, second.low, second.high):
        return Interval(None, None, None)
    difference = second.value - first.value  # type: ignore[operator]
    below = math.hypot(second.value - second.low, first.high - first.value)  # type: ignore[operator]
    above = math.hypot(second.high - second.value, first.value - first.low)  # type: ignore[operator]
    return Interval(difference, difference - below, difference + above)


def halves_without_difference(
    features: np.ndarray, reference: np.ndarray, draws: int, seed: int
) -> dict[str, float | None]:
    """By name of score, the share of `draws` in which two random halves of one set differ by no more than chance.

    It is that of intervals of `score_difference` that hold zero: 0.95 if the intervals are right, more if too wide.
    """
    held: dict[str, list[bool]] = {name: [] for name in FEATURE_SCORES}
    for draw in range(draws):
        order = np.random.default_rng((seed, draw)).permutation(len(features))
        first, second = (quality_scores(features[half], reference, seed + draw) for half in np.array_split(order, 2))
        for name, results in held.items():
            difference = score_difference(first[name], second[name])
            if difference.low is not None and difference.high is not None:
                results.append(difference.low <= 0 <= difference.high)
    return {name: sum(results) / len(results) if results else None for name, results in held.items()}
