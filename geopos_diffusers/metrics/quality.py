"""Scores of a set of images beside a reference, from features of both: how good and how varied the images are.

Every score depends on the features, so its name goes with the extractor's, and on the number of images: compare sets of
equal size, or read the score of the reference's halves beside it. `FEATURE_SCORES` says what each one is.
"""

import math
from dataclasses import asdict

import numpy as np

from .bootstrap import Interval, wilson_interval
from .cmmd import cmmd
from .fid import frechet_distance
from .kid import kid
from .mode_coverage import compare_counts, fit_bins, nearest_centers
from .neighbourhoods import neighbourhoods
from .quality_measures import FEATURE_SCORES, IMAGES_PER_BIN, MAXIMUM_BINS, QUALITY, warnings_for
from .subsampling import interval_about, subsampled_deviations
from .vendi import vendi_score

__all__ = [
    "QUALITY",
    "half_quality_scores",
    "quality_problems",
    "quality_scores",
    "warnings_for",
]

Pair = tuple[np.ndarray, np.ndarray]  # of the evaluated images and of the reference
NOTHING = Interval(None, None, None)
LARGEST = 1e9  # squares and their sums still fit into single precision
ROUNDING = 1e-9  # of a length: below it a difference is nothing but rounding


def quality_scores(
    features: np.ndarray, reference: np.ndarray, seed: int, *, intervals: bool = True
) -> dict[str, Interval]:
    """The scores of `FEATURE_SCORES` of features [N, D] beside a reference's [M, D], each with its 95% interval.

    Intervals of KID and CMMD are those of `kernel_distance`, all others of `subsampled_deviations`, about the score's
    expectation at this number of images; only NDB / K, which counts what is significant at it, is taken for a share of
    K independent bins. A score that cannot be had is an Interval of None: see `quality_problems`.

    Args:
        seed: of subsets and bins; the same seed gives the same scores.
        intervals: False leaves out their ends, which take most of the time; they are None then.
    """
    missing = quality_problems(features, reference)
    scores = dict.fromkeys(FEATURE_SCORES, NOTHING)
    for name, distance in (("kid", kid), ("cmmd", cmmd)):
        if name not in missing:
            scores[name] = distance(features, reference, seed)
    wanted = [name for name in FEATURE_SCORES if name not in missing and scores[name] is NOTHING]
    if wanted:
        score = _SubsetScore(features, reference, seed, wanted)
        values = score.of_all()
        deviations = subsampled_deviations(score, len(features), len(reference), seed) if intervals else {}
        for name in wanted:
            scores[name] = interval_about(values[name], deviations.get(name), *FEATURE_SCORES[name].range)
        if "vendi" in wanted:  # it grows with the number of images, and its deviation with it
            ends = interval_about(values["log vendi"], deviations.get("log vendi"), 0.0, math.inf)
            scores["vendi"] = Interval(values["vendi"], _exp(ends.low), _exp(ends.high))
        if "ndb" in wanted:
            scores["ndb"] = wilson_interval(values["ndb"], score.bin_count)
    if not intervals:
        scores = {name: Interval(score.value, None, None) for name, score in scores.items()}
    return scores


def half_quality_scores(reference: np.ndarray, seed: int) -> dict[str, Interval]:
    """What the reference itself reaches: scores of a random half of features [M, D] beside the other half."""
    first, second = np.array_split(reference[np.random.default_rng(seed).permutation(len(reference))], 2)
    return quality_scores(second, first, seed)


def quality_problems(features: np.ndarray, reference: np.ndarray) -> dict[str, str]:
    """By name of score, why it cannot be had of these features: a sentence without its end. Empty if all can."""
    reason = _problem_of_all(features, reference)
    if reason:
        return dict.fromkeys(FEATURE_SCORES, reason)
    fewest = min(len(features), len(reference))
    problems = {
        name: f"{len(features)} images and {len(reference)} of the reference; at least {measure.minimum} are needed"
        for name, measure in FEATURE_SCORES.items()
        if fewest < measure.minimum
    }
    center = reference.mean(0, dtype=np.float64)
    if "vendi" not in problems and np.linalg.norm(features - center, axis=1).min() <= ROUNDING * np.linalg.norm(center):
        problems["vendi"] = "an image's features are exactly the reference's mean, which gives them no direction"
    return problems


def _problem_of_all(features: np.ndarray, reference: np.ndarray) -> str | None:
    for name, values in (("images", features), ("reference", reference)):
        if values.ndim != 2 or not values.size:
            return f"no features of the {name}"
        if broken := int((~np.isfinite(values)).any(1).sum()):
            return f"features of {broken} of {len(values)} of the {name} are not finite numbers"
        if np.abs(values).max() > LARGEST:
            return f"features of the {name} reach {np.abs(values).max():.3g}; at most {LARGEST:.0e} can be scored"
    if features.shape[1] != reference.shape[1]:
        return f"features have {features.shape[1]} and {reference.shape[1]} values; both need the same extractor"
    return None


def _exp(value: float | None) -> float | None:
    return None if value is None else math.exp(value)


class _SubsetScore:
    """The `wanted` scores by name of subsets of features [N, D] and of a reference's [M, D]."""

    def __init__(self, features: np.ndarray, reference: np.ndarray, seed: int, wanted: list[str]) -> None:
        # About the mean, single precision suffices for subsets, and for comparing distances.
        center = reference.mean(0, dtype=np.float64)
        self.wanted = wanted
        self.exact: Pair = features - center, reference - center
        self.rounded: Pair = self.exact[0].astype(np.float32), self.exact[1].astype(np.float32)
        self.nearest_bins: Pair | None = None
        if "ndb" in wanted:
            centers = fit_bins(self.exact[1], min(len(reference) // IMAGES_PER_BIN, MAXIMUM_BINS), seed).centers
            self.bin_count = len(centers)
            self.nearest_bins = nearest_centers(self.exact[0], centers), nearest_centers(self.exact[1], centers)

    def of_all(self) -> dict[str, float]:
        return self._score(self.exact, self.rounded, self.nearest_bins)

    def __call__(self, chosen: np.ndarray, chosen_reference: np.ndarray) -> dict[str, float]:
        rounded = self.rounded[0][chosen], self.rounded[1][chosen_reference]
        bins = self.nearest_bins and (self.nearest_bins[0][chosen], self.nearest_bins[1][chosen_reference])
        return self._score(rounded, rounded, bins)

    def _score(self, exact: Pair, rounded: Pair, bins: Pair | None) -> dict[str, float]:
        scores = {"fid": frechet_distance(*exact), **asdict(neighbourhoods(*rounded, np.float32))}
        if "vendi" in self.wanted:  # of directions from the reference's mean: raw features all point the same way
            scores["vendi"] = vendi_score(exact[0] - exact[1].mean(0))
            scores["log vendi"] = math.log(scores["vendi"])
        if bins is not None:
            coverage = compare_counts(*(np.bincount(part, minlength=self.bin_count) for part in bins))
            scores |= {"ndb": coverage.different, "jsd": coverage.jensen_shannon}
        return scores
