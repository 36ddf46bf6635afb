"""Whether one model's images score better than another's: pairs of the same prompt and noise, intervals and tests.

Two models that draw from the same prompts and seeds differ by less chance than two sets of strangers, so their images
are compared pair by pair.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from ..errors import DataError
from .bootstrap import Interval, bootstrap_interval, bootstrap_mean_difference, mean
from .image_folder import FolderImage
from .paired_tests import fisher_p, holm, mcnemar_p, mean_p, paired_share_difference, share_difference, welch_p

BY_PROMPT_AND_SEED, BY_FILE_NAME, BY_PROMPT, NOT_PAIRED = "prompt and seed", "file name", "prompt", "not paired"
EXACT_MCNEMAR, PAIRED_BOOTSTRAP = "exact McNemar", "paired bootstrap"
FISHER, INDEPENDENT_BOOTSTRAP = "Fisher's exact, not paired", "independent bootstrap, not paired"


class Pairs(NamedTuple):
    """Indices [P] of one folder's images and of their counterparts in another, and what they have in common."""

    first: np.ndarray
    second: np.ndarray
    how: str


@dataclass(frozen=True)
class Comparison:
    """A measure of one model beside that of the baseline.

    Attributes:
        measure, baseline, other: names.
        pairs: number of pairs in which the measure applies to both images; of the smaller set where nothing pairs.
        difference: mean of the other minus mean of the baseline, with its 95% interval.
        wins, losses, ties: pairs in which the other is better, worse or the same; 0 where nothing pairs.
        p: two-sided, of no difference. None where there are too few values.
        p_holm: the same, corrected for all comparisons of the report.
        method: how the interval and p were computed.
    """

    measure: str
    baseline: str
    other: str
    pairs: int
    difference: Interval
    wins: int
    losses: int
    ties: int
    p: float | None
    p_holm: float | None
    method: str


class ComparedMeasure(Protocol):
    """What a comparison must know of a measure: kind "share" or "number", better "higher" or "lower"."""

    @property
    def kind(self) -> str: ...
    @property
    def better(self) -> str: ...


def pair_images(first: Sequence[FolderImage], second: Sequence[FolderImage]) -> Pairs:
    """The images of two folders that were drawn from the same prompt and noise, or are counterparts in another way.

    The first of these by which any two images pair is used for all:

    - "prompt and seed", both from the metadata: the same text and the same starting noise;
    - "file name", unless the prompts or seeds of both are known and differ (every folder has its 00000.png);
    - "prompt" alone: the same text, other noise; where it pairs half of the smaller folder or more.

    Where several images of a folder have the same key, they are paired in their order, and those left over are not
    paired. Images come in the order of `first`. With no pair at all, `how` is "not paired".
    """
    keys: dict[str, Callable[[FolderImage], Hashable]] = {
        BY_PROMPT_AND_SEED: lambda image: None if None in (image.text, image.seed) else (image.text, image.seed),
        BY_FILE_NAME: lambda image: image.name,
        BY_PROMPT: lambda image: image.text,
    }
    for how, key in keys.items():
        found = _pairs_by(key, first, second)
        if how == BY_FILE_NAME:
            found = [(one, other) for one, other in found if not _contradict(first[one], second[other])]
        enough = how != BY_PROMPT or 2 * len(found) >= min(len(first), len(second))
        if found and enough:
            indices = np.array(found)
            return Pairs(indices[:, 0], indices[:, 1], how)
    none = np.empty(0, dtype=np.int64)
    return Pairs(none, none, NOT_PAIRED)


def compare(first: np.ndarray, second: np.ndarray, kind: str, better: str, seed: int) -> Comparison:
    """The second values beside the first ones of the same pairs, [P] each; names and p_holm are left empty.

    Pairs in which either value is nan are left out. Shares: exact McNemar test and Newcombe's interval for paired
    shares. Numbers: percentile bootstrap over pairs (2,000 resamples) and, for p, Student's t of the differences: a
    share of resamples cannot be smaller than 1 / 2,000, too large to be corrected for many comparisons. Below about 20
    pairs the bootstrap's interval is somewhat narrow.

    Args:
        kind: "share" (values 0 and 1) or "number". better: "higher" or "lower". seed: of the bootstrap.

    Raises:
        DataError: a share with other values than 0, 1 and nan.
    """
    known = ~(np.isnan(first) | np.isnan(second))
    first, second = first[known], second[known]
    differences = second - first
    if kind == "share":
        one, other = _as_share(first), _as_share(second)
        p = mcnemar_p(int((one & ~other).sum()), int((other & ~one).sum())) if len(one) else None
        difference, method = paired_share_difference(one, other), EXACT_MCNEMAR
    else:
        difference, p, method = bootstrap_interval(mean, differences, seed=seed), mean_p(differences), PAIRED_BOOTSTRAP
    gains = differences if better == "higher" else -differences
    wins, losses = int((gains > 0).sum()), int((gains < 0).sum())
    return Comparison(
        "", "", "", len(differences), difference, wins, losses, len(differences) - wins - losses, p, None, method
    )


def compare_independent(first: np.ndarray, second: np.ndarray, kind: str, seed: int) -> Comparison:
    """The second values [M] beside the first ones [N], of images that do not pair; otherwise as `compare`.

    Shares: Fisher's exact test and Newcombe's interval for independent shares. Numbers: bootstrap of both sides, each
    by itself, and Welch's t for p.
    """
    first, second = first[~np.isnan(first)], second[~np.isnan(second)]
    count = min(len(first), len(second))
    if kind == "share":
        one, other = _as_share(first), _as_share(second)
        p = fisher_p(int(one.sum()), len(one), int(other.sum()), len(other)) if count else None
        difference, method = share_difference(one, other), FISHER
    else:
        difference = bootstrap_mean_difference(first, second, seed=seed)
        p, method = welch_p(first, second), INDEPENDENT_BOOTSTRAP
    return Comparison("", "", "", count, difference, 0, 0, 0, p, None, method)


def compare_models(
    images: Mapping[str, Sequence[FolderImage]],
    values: Mapping[str, Mapping[str, np.ndarray]],
    measures: Mapping[str, ComparedMeasure],
    seed: int,
) -> tuple[tuple[Comparison, ...], tuple[str, ...]]:
    """Every measure of every model beside that of the first model, the baseline, with p corrected over all of them.

    Args:
        images: by the model's name, in order; the values' images.
        values: by the model's name and the measure's, [N] of its images; nan where the measure does not apply.
        measures: by name.

    Returns:
        The comparisons, model by model, and a sentence on how each model's images were paired.
    """
    baseline, *others = images
    found, notes = [], []
    for other in others:
        pairs = pair_images(images[baseline], images[other])
        notes.append(describe_pairs(pairs, baseline, len(images[baseline]), other, len(images[other])))
        for name, measure in measures.items():
            first, second = values[baseline][name], values[other][name]
            if pairs.how == NOT_PAIRED:
                result = compare_independent(first, second, measure.kind, seed)
            else:
                result = compare(first[pairs.first], second[pairs.second], measure.kind, measure.better, seed)
            found.append(replace(result, measure=name, baseline=baseline, other=other))
    corrected = holm([result.p for result in found])
    return tuple(replace(result, p_holm=p) for result, p in zip(found, corrected, strict=True)), tuple(notes)


def describe_pairs(pairs: Pairs, baseline: str, baseline_count: int, other: str, other_count: int) -> str:
    """One sentence: by what the images of two models were paired, and how many of each were left out."""
    if pairs.how == NOT_PAIRED:
        return (
            f"{other} and {baseline} have no prompts, seeds or file names in common; their images are compared as "
            "independent sets."
        )
    count = len(pairs.first)
    left = [(name, total - count) for name, total in ((baseline, baseline_count), (other, other_count))]
    missing = " and ".join(f"{number} of {name}" for name, number in left if number)
    sentence = f"{other} and {baseline}: {count} pairs of images by {pairs.how}"
    return f"{sentence}; no counterpart: {missing}." if missing else f"{sentence}."


def _pairs_by(
    key: Callable[[FolderImage], Hashable], first: Sequence[FolderImage], second: Sequence[FolderImage]
) -> list[tuple[int, int]]:
    """Indices of images with the same key that is not None, each used once, in order."""
    waiting: dict[Hashable, list[int]] = defaultdict(list)
    for index in reversed(range(len(second))):
        waiting[key(second[index])].append(index)
    keyed = ((index, key(image)) for index, image in enumerate(first))
    return [(index, waiting[value].pop()) for index, value in keyed if value is not None and waiting.get(value)]


def _contradict(first: FolderImage, second: FolderImage) -> bool:
    known = ((first.text, second.text), (first.seed, second.seed))
    return any(one is not None and other is not None and one != other for one, other in known)


def _as_share(values: np.ndarray) -> np.ndarray:
    if not np.isin(values, (0.0, 1.0)).all():
        wrong = values[~np.isin(values, (0.0, 1.0))][0]
        raise DataError(f"a share is made of zeros and ones; found {wrong:g}")
    return values.astype(bool)
