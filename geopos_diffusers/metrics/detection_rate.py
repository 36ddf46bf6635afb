"""The share of images in which a hand is found, beside that of reference images with the same attributes.

A detector finds open hands more easily than fists, so a rate says little by itself, and a reference with other hands in
it misleads. So every evaluated image is compared with those reference images that agree with it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .bootstrap import Interval, bootstrap_interval, mean, weighted_mean
from .hand_attributes import HandAttributes

MATCHED_BY_DEFAULT = ("fingers", "view", "handedness")


@dataclass(frozen=True)
class ReferenceMatch:
    """weights: [M] of the reference images, summing to the number of evaluated images that have a match.

    attributes: those that were known of at least one evaluated and one reference image, hence matched.
    unmatched: indices of evaluated images that no reference image agrees with; the weights leave them out.
    unknown: number of evaluated images of which none of the attributes is known; all reference images match them.
    """

    weights: np.ndarray
    attributes: tuple[str, ...]
    unmatched: tuple[int, ...]
    unknown: int


def match_reference(
    evaluated: Sequence[HandAttributes],
    reference: Sequence[HandAttributes],
    names: Sequence[str] = MATCHED_BY_DEFAULT,
) -> ReferenceMatch:
    """Weights that give the reference the attribute distribution of the evaluated images.

    Every evaluated image hands out a weight of 1, in equal parts, to all reference images that agree with it in
    each attribute of `names` that is known of it. So where all are known, the weighted reference has the same joint
    distribution, and an image of which only the number of fingers is known is compared with all views of that number.
    """
    known_in_reference = {name for name in names if any(getattr(row, name) is not None for row in reference)}
    weights = np.zeros(len(reference))
    columns = {name: np.array([getattr(row, name) for row in reference], dtype=object) for name in known_in_reference}
    unmatched, unknown = [], 0
    used: set[str] = set()
    for index, row in enumerate(evaluated):
        wanted = {name: getattr(row, name) for name in known_in_reference if getattr(row, name) is not None}
        unknown += not wanted
        used.update(wanted)
        agrees = np.ones(len(reference), dtype=bool)
        for name, value in wanted.items():
            agrees &= columns[name] == value
        if agrees.any():
            weights[agrees] += 1 / agrees.sum()
        else:
            unmatched.append(index)
    return ReferenceMatch(weights, tuple(name for name in names if name in used), tuple(unmatched), unknown)


def rate(values: np.ndarray, seed: int) -> Interval:
    """Mean of [N] values (found: 1 or 0; scores) with its interval; nan values are left out."""
    return bootstrap_interval(mean, values, seed=seed)


def matched_rate(values: np.ndarray, weights: np.ndarray, seed: int) -> Interval:
    """Mean of the reference's [M] values under the weights of `match_reference`, with its interval."""
    rows = np.stack([values, weights], axis=1)[weights > 0]
    return bootstrap_interval(weighted_mean, rows, seed=seed)


def rate_ratio(evaluated: np.ndarray, reference: np.ndarray, weights: np.ndarray, seed: int) -> Interval:
    """Rate of the evaluated images [N] over the matched rate of the reference [M], with its interval.

    Both sides are resampled, each by itself. None where the reference's rate is 0.
    """
    rows = np.stack([reference, weights], axis=1)[weights > 0]

    def ratio(drawn: np.ndarray, drawn_rows: np.ndarray) -> float:
        below = weighted_mean(drawn_rows)
        return mean(drawn) / below if below > 0 else math.nan

    return bootstrap_interval(ratio, evaluated, rows, seed=seed)
