"""Where a claim's verdict is computed: from estimates over seeds, with p values corrected for a table's rows.

A verdict needs five seeds; with fewer the label is "suggestive, n = 3". An effect is there if its two-sided p value,
corrected by Holm's method for all tests of its table, is below 0.05. The paper's claims and this project's own aims are
separate rows.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from geopos_diffusers.metrics.bootstrap import Interval

from .gan.collapse import Collapse, surviving_share
from .statistics import Estimate, holm

LEAST_SEEDS, LEVEL = 5, 0.05
REPRODUCED, IN_PART, NOT_REPRODUCED, OPPOSITE = "reproduced", "in part", "not reproduced", "opposite"
MEASURED = "measured"  # of questions and next checks, which claim nothing
YES, NO, OTHER_WAY = "yes", "no", "the other way"  # of questions that have an answer
FREE_OF_BIAS = 0.1  # of accuracy, same minus swapped places
STEP_AIM = 1.03  # this project's own, of a plain convolution's training step


@dataclass(frozen=True)
class Effect:
    """A claim on one number.

    claimed: "less" or "more" than `none`, the value without an effect (0 of differences, 1 of ratios).
    paper: the mildest value that the paper reports; None where the direction is all that is claimed.
    """

    estimate: Estimate
    claimed: str
    none: float
    paper: float | None = None

    @property
    def count(self) -> int:
        return self.estimate.count

    @property
    def p(self) -> float | None:
        return self.estimate.p

    def verdict(self, p: float) -> str:
        """in part: the effect is there, and the paper's value is beyond the interval; opposite: the other way."""
        estimate, less = self.estimate, self.claimed == "less"
        if p >= LEVEL:
            return NOT_REPRODUCED
        if (estimate.value < self.none) != less:
            return OPPOSITE
        reached = self.paper is None or (estimate.low <= self.paper if less else estimate.high >= self.paper)
        return REPRODUCED if reached else IN_PART


class Question(Effect):
    """The same of what nobody claimed: whether the effect is there."""

    def verdict(self, p: float) -> str:
        answers = {REPRODUCED: YES, IN_PART: YES, OPPOSITE: OTHER_WAY, NOT_REPRODUCED: NO}
        return answers[super().verdict(p)]


@dataclass(frozen=True)
class Bias:
    """Claim C2: CoordConv ties a class to its place and GeoConv does not.

    coord, geo: bias (accuracy at the same minus at swapped places), p of `coord` of the bias 0.1.
    difference: of GeoConv's minus CoordConv's.
    """

    coord: Estimate
    geo: Estimate
    difference: Estimate

    @property
    def count(self) -> int:
        return self.difference.count

    @property
    def p(self) -> float | None:
        """The larger one of both parts: each must be there."""
        known = [estimate.p for estimate in (self.coord, self.difference)]
        return None if None in known else max(known)

    def verdict(self, p: float) -> str:
        """in part: GeoConv's bias is smaller, but its interval reaches above 0.1."""
        if p >= LEVEL or self.coord.value <= FREE_OF_BIAS or self.difference.value >= 0:
            return NOT_REPRODUCED
        return REPRODUCED if self.geo.high <= FREE_OF_BIAS else IN_PART


Test = Effect | Bias | str  # a string is a verdict without a p value


@dataclass(frozen=True)
class Judgement:
    """A verdict and the corrected p value behind it, where there is one."""

    verdict: str
    p: float | None = None


def judge(tests: Sequence[Test]) -> list[Judgement]:
    """Verdicts of the rows of one table. Tests of enough seeds are corrected for their number."""
    p_values = [None if isinstance(test, str) or test.count < LEAST_SEEDS else test.p for test in tests]
    found = []
    for test, p in zip(tests, holm(p_values), strict=True):
        if isinstance(test, str):
            found.append(Judgement(test))
        elif p is None:
            found.append(Judgement(too_few(test.count) or "not tested: a score of 0 has no ratio"))
        else:
            found.append(Judgement(test.verdict(p), p))
    return found


def too_few(seeds: int) -> str | None:
    """What is said of too few seeds, None of enough."""
    if seeds < 2:
        return f"not tested: n = {seeds}"
    return f"suggestive, n = {seeds}" if seeds < LEAST_SEEDS else None


def in_short(verdicts: Sequence[str]) -> str:
    """The verdicts of one claim in several settings: the one that all share, or how often there is each."""
    counts = Counter(verdicts)
    if len(counts) == 1:
        return verdicts[0]
    return "; ".join(f"{count} x {verdict}" for verdict, count in counts.most_common())


def collapse_verdict(runs: Sequence[Collapse], epoch: int) -> str:
    """Whether a kind collapses. reproduced: all runs that learnt collapsed by `epoch` for good; in part: some did."""
    learnt = [run for run in runs if run.learnt_at is not None]
    if few := too_few(len(learnt)):
        return few
    if surviving_share(learnt, epoch) == 0 and all(run.recovered_at is None for run in learnt):
        return REPRODUCED
    return IN_PART if any(run.collapsed_at is not None for run in learnt) else NOT_REPRODUCED


def survival_verdict(geo: Sequence[Collapse], others: Sequence[Collapse], epoch: int) -> str:
    """Whether GeoConv alone survives. reproduced: all its runs survive `epoch`, no other does; in part: some others do.

    Where nothing collapsed there was nothing to survive.
    """
    runs = [*geo, *others]
    if all(run.collapsed_at is None for run in runs):
        return "not tested: nothing collapsed"
    if few := too_few(sum(run.learnt_at is not None for run in geo)):
        return few
    if any(run.learnt_at is None for run in geo) or surviving_share(geo, epoch) < 1:
        return NOT_REPRODUCED
    return REPRODUCED if surviving_share(others, epoch) == 0 else IN_PART


def count_verdict(holds: bool) -> str:
    """Of what is counted and not estimated."""
    return REPRODUCED if holds else NOT_REPRODUCED


def cost_verdict(geo: Interval, coord: Interval) -> str:
    """Whether a step with GeoConv takes less time than with CoordConv: the intervals are apart."""
    if geo.high is None or coord.high is None:
        return "not tested: one round"
    if geo.high < coord.low:
        return REPRODUCED
    return OPPOSITE if coord.high < geo.low else NOT_REPRODUCED


def aim_verdict(ratios: Sequence[Interval]) -> str:
    """This project's own aim for the time of a step, in all networks."""
    if any(ratio.high is None for ratio in ratios):
        return "not tested: one round"
    return f"aim {'met' if all(ratio.high <= STEP_AIM for ratio in ratios) else 'missed'}"


def comparison_texts(estimates: Sequence[Estimate], others: Sequence[str]) -> list[str]:
    """What paired differences of losses show of each other one, corrected for the number of comparisons."""
    enough = [estimate.p if estimate.count >= LEAST_SEEDS else None for estimate in estimates]
    texts = []
    for estimate, other, p in zip(estimates, others, holm(enough), strict=True):
        if few := too_few(estimate.count):
            texts.append(f"not compared with that of {other} ({few})")
        elif p >= LEVEL:
            texts.append(f"not shown to differ from that of {other}")
        else:
            texts.append(f"{'lower' if estimate.value < 0 else 'higher'} than that of {other}")
    return texts
