"""How far the two judges agree: Cohen's kappa of what both say of an image, and correlations of their scores."""

from collections.abc import Callable

import numpy as np

from .bootstrap import Interval, bootstrap_interval
from .measure_values import LIKELY
from .records import ScoredFolder


def cohen_kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Agreement of two raters beyond chance (Cohen, Educational and Psychological Measurement 20, 1960).

    Args:
        first: [N] labels of any kind, of one rater.
        second: [N] labels of the other.

    Returns:
        1 for full agreement, 0 for that of chance; nan where both always give the same one label, as nothing can then
        be said beyond chance, and without images.
    """
    if len(first) == 0:
        return float("nan")
    labels = np.unique(np.concatenate([first, second]))
    agreed = float((first == second).mean())
    chance = float(sum((first == label).mean() * (second == label).mean() for label in labels))
    return (agreed - chance) / (1 - chance) if chance < 1 else float("nan")


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation of [N] values: Pearson's of their ranks, equal values sharing the mean rank."""
    if len(first) < 3:
        return float("nan")
    ranks = np.stack([_ranks(first), _ranks(second)])
    return float(np.corrcoef(ranks)[0, 1]) if ranks.std(1).min() > 0 else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def judges_agreement(scored: ScoredFolder, values: dict[str, np.ndarray], seed: int) -> dict[str, Interval]:
    """Agreement of the detector and the second judge on the images of a folder, with bootstrap intervals.

    Args:
        values: of the folder, by measure.

    Returns:
        By name; empty without the second judge.
        found_kappa: of "a hand is there", over all images.
        fingers_kappa, handedness_kappa: of the number of raised fingers and of left and right, over images in which
        both see a hand.
        anatomy_correlation, presence_correlation: Spearman's, of the second judge's well-formedness with the distance
        of the anatomy (better: below 0) and with the presence, over images with a hand found.
    """
    rows = [row for row in scored.entries if row.judgement is not None]
    if not rows:
        return {}
    judged = [row.judgement for row in rows if row.judgement is not None]
    found = np.array([bool(row.hands) for row in rows])
    present = np.array([judgement.present > LIKELY for judgement in judged])
    both = found & present
    counted = np.array([-1 if row.counted is None else row.counted for row in rows])
    fingers = np.array([judgement.fingers for judgement in judged])
    is_right = np.array([bool(row.hands) and row.hands[0].handedness == "right" for row in rows])
    judged_right = np.array([judgement.right_hand > LIKELY for judgement in judged])
    pairs: dict[str, tuple[Callable[[np.ndarray, np.ndarray], float], np.ndarray, np.ndarray]] = {
        "found_kappa": (cohen_kappa, found, present),
        "fingers_kappa": (cohen_kappa, counted[both], fingers[both]),
        "handedness_kappa": (cohen_kappa, is_right[both], judged_right[both]),
    }
    for name, measure in (("anatomy_correlation", "anatomy_distance"), ("presence_correlation", "presence")):
        known = np.isfinite(values[measure]) & np.isfinite(values["judge_score"])
        pairs[name] = (rank_correlation, values[measure][known], values["judge_score"][known])
    return {
        name: bootstrap_interval(
            lambda rows, statistic=statistic: statistic(rows[:, 0], rows[:, 1]), np.stack([first, second], 1), seed=seed
        )
        for name, (statistic, first, second) in pairs.items()
    }
