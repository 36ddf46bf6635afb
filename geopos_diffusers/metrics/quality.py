"""Scores of a set of images beside a reference, from features of both: how good and how varied the images are.

Every score depends on the features, so its name goes with the extractor's, and on the number of images: compare sets of
equal size, or read the score of the reference's halves beside it. `QUALITY` says what each one is.
"""

import math
from dataclasses import asdict
from typing import NamedTuple

import numpy as np

from .bootstrap import Interval
from .cmmd import cmmd
from .fid import frechet_distance
from .kid import MINIMUM_IMAGES, kid
from .mode_coverage import compare_counts, fit_bins, nearest_centers
from .neighbourhoods import neighbourhoods
from .subsampling import interval_about, subsampled_deviations
from .vendi import vendi_score

NOTHING = Interval(None, None, None)
MINIMUM_SUBSAMPLED = 12  # halves of less have too few images for five neighbours
IMAGES_PER_BIN, MAXIMUM_BINS = 10, 100  # of the reference


class QualityMeasure(NamedTuple):
    """What a score is.

    title: for tables. better: "lower", "higher" or "near the reference's". usual: number of images of each set that
    papers use or ask for. source: paper. range: of its values. minimum: fewest images of each set.
    """

    title: str
    better: str
    usual: int
    source: str
    range: tuple[float, float]
    minimum: int = MINIMUM_SUBSAMPLED


ANY, POSITIVE, SHARE = (-math.inf, math.inf), (0.0, math.inf), (0.0, 1.0)
NEAR = "near the reference's"
QUALITY: dict[str, QualityMeasure] = {
    "fid": QualityMeasure("FID", "lower", 10_000, "Heusel et al., arXiv 1706.08500", POSITIVE),
    "kid": QualityMeasure("KID", "lower", 1000, "Bińkowski et al., arXiv 1801.01401", ANY, MINIMUM_IMAGES),
    "cmmd": QualityMeasure("CMMD", "lower", 1000, "Jayasumana et al., arXiv 2401.09603", ANY, MINIMUM_IMAGES),
    "precision": QualityMeasure("precision", "higher", 10_000, "Kynkäänniemi et al., arXiv 1904.06991", SHARE),
    "recall": QualityMeasure("recall", "higher", 10_000, "Kynkäänniemi et al., arXiv 1904.06991", SHARE),
    "density": QualityMeasure("density", NEAR, 10_000, "Naeem et al., arXiv 2002.09797", POSITIVE),
    "coverage": QualityMeasure("coverage", "higher", 10_000, "Naeem et al., arXiv 2002.09797", SHARE),
    "vendi": QualityMeasure("Vendi score", NEAR, 1000, "Friedman and Dieng, arXiv 2210.02410", (1.0, math.inf)),
    "ndb": QualityMeasure("NDB / K", "lower", 1000, "Richardson and Weiss, arXiv 1805.12462", SHARE, 20),
    "jsd": QualityMeasure("JSD", "lower", 1000, "Richardson and Weiss, arXiv 1805.12462", SHARE, 20),
}


def quality_scores(
    features: np.ndarray, reference: np.ndarray, seed: int, *, intervals: bool = True
) -> dict[str, Interval]:
    """The scores of `QUALITY` of features [N, D] beside a reference's [M, D], each with its 95% interval.

    Intervals of KID and CMMD are those of `kernel_distance`, all others of `subsampled_deviations`, about the score's
    expectation at this number of images. A score that cannot be had is an Interval of None: see `quality_problems`.

    Args:
        seed: of subsets and bins; the same seed gives the same scores.
        intervals: False leaves out their ends, which take most of the time; they are None then.
    """
    missing = quality_problems(features, reference)
    scores = dict.fromkeys(QUALITY, NOTHING)
    for name, distance in (("kid", kid), ("cmmd", cmmd)):
        if name not in missing:
            scores[name] = distance(features, reference, seed)
    wanted = [name for name in QUALITY if name not in missing and scores[name] is NOTHING]
    if wanted:
        score = _SubsetScore(features, reference, seed, wanted)
        values = score.of_all()
        deviations = subsampled_deviations(score, len(features), len(reference), seed) if intervals else {}
        for name in wanted:
            scores[name] = interval_about(values[name], deviations.get(name), *QUALITY[name].range)
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
        return dict.fromkeys(QUALITY, reason)
    fewest = min(len(features), len(reference))
    problems = {
        name: f"{len(features)} images and {len(reference)} of the reference; at least {measure.minimum} are needed"
        for name, measure in QUALITY.items()
        if fewest < measure.minimum
    }
    if "vendi" not in problems and not (features != reference.mean(0, dtype=np.float64)).any(1).all():
        problems["vendi"] = "an image's features are exactly the reference's mean, which gives them no direction"
    return problems


def _problem_of_all(features: np.ndarray, reference: np.ndarray) -> str | None:
    for name, values in (("images", features), ("reference", reference)):
        if values.ndim != 2 or not len(values):
            return f"no features of the {name}"
        if broken := int((~np.isfinite(values)).any(1).sum()):
            return f"features of {broken} of {len(values)} of the {name} are not finite numbers"
    if features.shape[1] != reference.shape[1]:
        return f"features have {features.shape[1]} and {reference.shape[1]} values; both need the same extractor"
    return None


def warnings_for(count: int, reference_count: int, width: int | None = None) -> tuple[str, ...]:
    """Sentences on what too few images do to the scores; none if there are enough.

    Args:
        count, reference_count: images of the set and of the reference.
        width: D, values of one image's features.
    """
    fewest = min(count, reference_count)
    few: dict[int, list[str]] = {}
    for measure in QUALITY.values():
        if fewest < measure.usual:
            few.setdefault(measure.usual, []).append(measure.title)
    sentences = [
        f"{', '.join(titles)}: {fewest:,} images, fewer than the usual {usual:,}; compare only with scores of as many."
        for usual, titles in sorted(few.items())
    ]
    if width is not None and fewest <= width:
        sentences.append(f"FID of {fewest:,} images with {width:,} features each is far too high, by its bias.")
    return tuple(sentences)


class _SubsetScore:
    """The `wanted` scores by name of subsets of features [N, D] and of a reference's [M, D]."""

    def __init__(self, features: np.ndarray, reference: np.ndarray, seed: int, wanted: list[str]) -> None:
        # The Vendi score is that of directions from the reference's mean: raw features all point the same way. To the
        # others the place does not matter, and about the mean single precision suffices for subsets.
        center = reference.mean(0, dtype=np.float64)
        self.wanted = wanted
        self.exact = features - center, reference - center
        self.rounded = tuple(part.astype(np.float32) for part in self.exact)
        self.nearest_bins: tuple[np.ndarray, ...] | None = None
        if "ndb" in wanted:
            centers = fit_bins(self.exact[1], min(len(reference) // IMAGES_PER_BIN, MAXIMUM_BINS), seed).centers
            self.bin_count = len(centers)
            self.nearest_bins = tuple(nearest_centers(part, centers) for part in self.exact)

    def of_all(self) -> dict[str, float]:
        return self._score(*self.exact, self.nearest_bins)

    def __call__(self, *chosen: np.ndarray) -> dict[str, float]:
        features, reference = (part[rows] for part, rows in zip(self.rounded, chosen, strict=True))
        bins = self.nearest_bins and tuple(part[rows] for part, rows in zip(self.nearest_bins, chosen, strict=True))
        return self._score(features, reference, bins)

    def _score(
        self, features: np.ndarray, reference: np.ndarray, bins: tuple[np.ndarray, ...] | None
    ) -> dict[str, float]:
        scores = {"fid": frechet_distance(features, reference)}
        scores |= asdict(neighbourhoods(features, reference, features.dtype.type))
        if "vendi" in self.wanted:
            scores["vendi"] = vendi_score(features)
        if bins is not None:
            coverage = compare_counts(*(np.bincount(part, minlength=self.bin_count) for part in bins))
            scores |= {"ndb": coverage.different, "jsd": coverage.jensen_shannon}
        return scores
