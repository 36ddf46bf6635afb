"""95% intervals from random subsets drawn without replacement (Politis, Romano and Wolf, Subsampling, 1999).

For scores that the bootstrap misjudges, since it repeats images: a repeated image is its own nearest neighbour, and
makes a set look poorer than it is. Of n images, scores of subsets of b scatter with the variance of the score of all
times (n - b) / b. So scores of halves (b = n / 2) scatter just as the score of all does about its expectation.
"""

import math
from collections.abc import Callable

import numpy as np

from .bootstrap import NORMAL_95, Interval

SUBSETS = 40  # their standard deviation is known to about 11%
SUBSET_IMAGES = 500  # more would take long and tell the same; the factor above makes up for it

# From the subsets' indices [B] of the samples and [C] of the real images to scores by name.
SubsetScores = Callable[[np.ndarray, np.ndarray], dict[str, float]]


def subsampled_deviations(scores: SubsetScores, count: int, real_count: int, seed: int) -> dict[str, float]:
    """Standard deviations by name of scores of `count` samples beside `real_count` real images.

    Each of SUBSETS subsets holds half of both sets, but at most SUBSET_IMAGES of each. Where that is less than half of
    one set only, the result is somewhat too large.
    """
    sizes = [min(total // 2, SUBSET_IMAGES) for total in (count, real_count)]
    generator = np.random.default_rng(seed)
    rows = [
        scores(generator.permutation(count)[: sizes[0]], generator.permutation(real_count)[: sizes[1]])
        for _ in range(SUBSETS)
    ]
    factor = min((total - size) / size for total, size in zip((count, real_count), sizes, strict=True))
    return {name: float(np.std([row[name] for row in rows], ddof=1)) / math.sqrt(factor) for name in rows[0]}


def interval_about(value: float, deviation: float | None, low: float, high: float) -> Interval:
    """The value with the ends of its normal 95% interval, cut to the range [low, high] of the score.

    It is about the score's expectation at this number of images, which is not 0 for a biased score of like sets.
    Without a deviation there are no ends.
    """
    if deviation is None:
        return Interval(value, None, None)
    reach = NORMAL_95 * deviation
    return Interval(value, max(value - reach, low), min(value + reach, high))
