"""Controls that a measure of hands must pass, from its values on sets of images whose truth is known. No images here.

Values are [N] of images, nan where the measure does not apply. `sign` is 1 where higher values are better, else -1.
"""

from collections.abc import Sequence

import numpy as np

from geopos_diffusers.metrics.bootstrap import Interval, bootstrap_interval, mean
from geopos_diffusers.metrics.comparison import compare_independent

SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)  # of defective hands mixed into a set
SHARE_TOLERANCE = 0.03  # by how much a share may gain from what adds no quality
NUMBER_TOLERANCE = 0.15  # the same for a number, in standard deviations over the images
SIZE_TOLERANCES = (0.05, 0.25)  # by how much a share, and a number in deviations, may move with the image's size


def worsening(proper: np.ndarray, defective: np.ndarray, sign: int, seed: int) -> Interval:
    """How much worse a set of defective hands scores than one of proper hands; above 0 where the measure sees it."""
    return bootstrap_interval(lambda left, right: sign * (mean(left) - mean(right)), proper, defective, seed=seed)


def dose_curve(proper: np.ndarray, defective: np.ndarray, images: int, draws: int, seed: int) -> list[float]:
    """Mean over draws of the score of a set of `images`, for each of SHARES: so many hands are defective."""
    generator = np.random.default_rng(seed)
    curve = []
    for share in SHARES:
        bad = round(share * images)
        sets = [
            np.concatenate([generator.choice(proper, images - bad), generator.choice(defective, bad)])
            for _ in range(draws)
        ]
        curve.append(float(np.mean([mean(values) for values in sets])))
    return curve


def is_monotone(curve: Sequence[float], sign: int) -> bool:
    """Whether each larger share of defective hands scores worse."""
    return bool((sign * np.diff(curve) < 0).all())


def null_coverage(values: np.ndarray, kind: str, draws: int, seed: int) -> float | None:
    """Share of random halves of one set whose difference has an interval that holds 0: 0.95 if intervals are right.

    The interval is the one that reports give for sets that do not pair. None where the values do not differ, as
    nothing is at stake then.
    """
    known = values[~np.isnan(values)]
    if len(known) < 4 or np.ptp(known) == 0:
        return None
    generator = np.random.default_rng(seed)
    held = []
    for draw in range(draws):
        first, second = np.array_split(generator.permutation(values), 2)
        low, high = (getattr(compare_independent(first, second, kind, draw).difference, end) for end in ("low", "high"))
        held.append(low is not None and low <= 0 <= high)
    return float(np.mean(held))


def gain(before: np.ndarray, after: np.ndarray, sign: int, seed: int) -> Interval:
    """How much better the same images score after a change that adds no quality, paired; nan on one side counts.

    An image that loses its value, because no hand is found any more, takes part on its own side: otherwise a change
    could raise a score by hiding the bad hands.
    """
    columns = np.stack([before, after], axis=1)
    return bootstrap_interval(lambda rows: sign * (mean(rows[:, 1]) - mean(rows[:, 0])), columns, seed=seed)


def tolerance(values: np.ndarray, kind: str, share: float = SHARE_TOLERANCE, number: float = NUMBER_TOLERANCE) -> float:
    """What a change may move a measure by: of "share" measures in shares, of numbers in deviations of `values`."""
    return share if kind == "share" else number * float(np.nanstd(values))
