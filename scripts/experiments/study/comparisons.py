"""Whether geometry beats its controls: paired differences over seeds, their verdicts, and the answer in a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..statistics import Estimate, difference_estimate
from ..verdict import LEAST_SEEDS, NO, OTHER_WAY, YES, Question, comparison_texts, judge
from .measures import LOWER, measure_of
from .task_results import Pair, TaskResults

TOO_FEW, NOT_RUN = "too few seeds", "not run yet"
IN_PART = "in part"  # of a task: some pairs are "yes", others are not
DECIDED = (YES, NO, OTHER_WAY)


@dataclass(frozen=True)
class Comparison:
    """Two arms by one score.

    estimate: the first minus the second. effect_size: Cohen's d_z, None of fewer than five seeds. p: of the estimate,
    corrected by Holm's method for the task's pairs. verdict: whether the first is better. text: the same in words.
    """

    pair: Pair
    estimate: Estimate
    effect_size: float | None
    p: float | None
    verdict: str
    text: str


def effect_size(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Cohen's d_z: the mean of paired differences divided by their standard deviation.

    None of fewer than five pairs, and of differences that are all the same.
    """
    differences = np.subtract(first, second)
    if len(differences) < LEAST_SEEDS or (deviation := float(differences.std(ddof=1))) == 0:
        return None
    return float(differences.mean()) / deviation


def primary_comparisons(task: TaskResults) -> list[Comparison]:
    """A task's pairs by its primary score."""
    values = [task.paired(pair, task.primary) for pair in task.pairs]
    estimates = [difference_estimate(*both) for both in values]
    judged = judge([better(task, one) for one in estimates])
    texts = comparison_texts(estimates, [control for _, control in task.pairs])
    return [
        Comparison(
            pair,
            estimate,
            effect_size(*both),
            judgement.p,
            judgement.verdict if judgement.verdict in DECIDED else TOO_FEW if estimate.count else NOT_RUN,
            text,
        )
        for pair, both, estimate, judgement, text in zip(task.pairs, values, estimates, judged, texts, strict=True)
    ]


def better(task: TaskResults, difference: Estimate) -> Question:
    """Whether the first of two arms is better by the task's primary score."""
    return Question(difference, "less" if measure_of(task.primary).better == LOWER else "more", 0.0)


def task_verdict(comparisons: Sequence[Comparison]) -> str:
    """Of all pairs that have five seeds: YES or OTHER_WAY where all are, IN_PART where some are YES, else NO."""
    verdicts = {one.verdict for one in comparisons}
    if not (decided := verdicts - {TOO_FEW, NOT_RUN}):
        return TOO_FEW if TOO_FEW in verdicts else NOT_RUN
    if len(decided) == 1:
        return decided.pop()
    return IN_PART if YES in decided else NO


def counts_text(comparisons: Sequence[Comparison]) -> str:
    """ "better in 2 of 4 comparisons, worse in 1", of those with five seeds; else the number of seeds."""
    decided = [one.verdict for one in comparisons if one.verdict in DECIDED]
    if not decided:
        return f"n = {max(one.estimate.count for one in comparisons)}"
    worse = decided.count(OTHER_WAY)
    comparison = "comparison" if len(decided) == 1 else "comparisons"
    text = f"better in {decided.count(YES)} of {len(decided)} {comparison}"
    return f"{text}, worse in {worse}" if worse else text


SAYINGS = {
    YES: "helps with",
    IN_PART: "helps beside some controls with",
    NO: "does not help with",
    OTHER_WAY: "does worse than its controls with",
    TOO_FEW: "has too few seeds to tell with",
    NOT_RUN: "was not run yet with",
}


def answer(found: dict[str, list[Comparison]]) -> str:
    """The answer in a sentence. found: the primary comparisons of each task, by its name."""
    by_verdict: dict[str, list[str]] = {}
    for name, comparisons in found.items():
        verdict = task_verdict(comparisons)
        shown = name if verdict == NOT_RUN else f"{name} ({counts_text(comparisons)})"
        by_verdict.setdefault(verdict, []).append(shown)
    parts = [
        f"{saying} {in_words(by_verdict[verdict])}" for verdict, saying in SAYINGS.items() if verdict in by_verdict
    ]
    return f"By the primary score of each task, geometry {'; '.join(parts)}."


def in_words(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
