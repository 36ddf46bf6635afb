"""Verdicts of estimates that are made by hand."""

from dataclasses import replace

import pytest
from experiments.gan.collapse import Collapse
from experiments.statistics import Estimate, mean_estimate
from experiments.verdict import (
    Bias,
    Effect,
    Question,
    aim_verdict,
    collapse_verdict,
    cost_verdict,
    count_verdict,
    in_short,
    judge,
    survival_verdict,
)

from geopos_diffusers.metrics.bootstrap import Interval


def estimate(low, high, p=0.001, count=5):
    return Estimate((low + high) / 2, low, high, p, count)


def verdicts(*tests):
    return [judged.verdict for judged in judge(tests)]


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (0.4, 0.6, 0.01, "reproduced"),
        (0.3, 0.4, 0.01, "reproduced"),
        (0.6, 0.9, 0.01, "in part"),  # the paper's 0.54 is beyond the interval
        (0.4, 1.1, 0.06, "not reproduced"),
        (1.2, 1.4, 0.01, "opposite"),
    ],
)
def test_a_smaller_ratio(low, high, p, expected):
    assert verdicts(Effect(estimate(low, high, p), "less", 1, 0.54)) == [expected]


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [(0.4, 0.6, 0.01, "yes"), (0.4, 1.1, 0.06, "no"), (1.2, 1.4, 0.01, "the other way")],
)
def test_a_question(low, high, p, expected):
    assert verdicts(Question(estimate(low, high, p), "less", 1)) == [expected]
    assert verdicts(Question(estimate(low, high, p, count=3), "less", 1)) == ["suggestive, n = 3"]


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [(4.0, 8.0, 0.01, "reproduced"), (1.2, 4.0, 0.01, "in part"), (0.1, 0.5, 0.01, "opposite")],
)
def test_a_larger_ratio(low, high, p, expected):
    assert verdicts(Effect(estimate(low, high, p), "more", 1, 5)) == [expected]


def test_a_direction_alone():
    assert verdicts(Effect(estimate(-0.2, -0.1), "less", 0)) == ["reproduced"]


@pytest.mark.parametrize(
    ("count", "expected"),
    [(5, "reproduced"), (4, "suggestive, n = 4"), (3, "suggestive, n = 3"), (1, "not tested: n = 1")],
)
def test_five_seeds_are_needed(count, expected):
    assert verdicts(Effect(estimate(0.4, 0.6, count=count), "less", 1)) == [expected]


def test_p_values_are_corrected_for_the_tests_of_the_table():
    effect = Effect(estimate(0.4, 0.6, p=0.03), "less", 1)
    assert judge([effect, "measured"])[0] == judge([effect])[0]
    assert verdicts(effect) == ["reproduced"]
    assert verdicts(effect, effect) == ["not reproduced"] * 2
    assert judge([effect, effect])[0].p == pytest.approx(0.06)
    few = replace(effect, estimate=replace(effect.estimate, count=3))
    assert verdicts(effect, few) == ["reproduced", "suggestive, n = 3"]  # what is not judged is not counted


def test_a_ratio_of_zeros_is_not_tested():
    effect = Effect(Estimate(None, None, None, None, 5), "less", 1)
    assert verdicts(effect) == ["not tested: a score of 0 has no ratio"]


@pytest.mark.parametrize(
    ("coord", "geo", "expected"),
    [
        ((0.8, 0.9), (-0.02, 0.05), "reproduced"),
        ((0.8, 0.9), (0.3, 0.5), "in part"),
        ((0.8, 0.9), (0.82, 0.95), "not reproduced"),
        ((0.0, 0.05), (-0.1, -0.05), "not reproduced"),  # CoordConv is not biased, so there is nothing to avoid
    ],
)
def test_positional_bias(coord, geo, expected):
    difference = estimate(geo[0] - coord[0], geo[1] - coord[1])
    assert verdicts(Bias(estimate(*coord), estimate(*geo), difference)) == [expected]


def test_both_parts_of_the_bias_must_be_there():
    bias = Bias(estimate(0.05, 0.3, p=0.2), estimate(-0.1, 0.0), estimate(-0.3, -0.1))
    assert bias.p == 0.2
    assert verdicts(bias) == ["not reproduced"]
    assert mean_estimate([0.3, 0.2, 0.3, 0.2, 0.4], null=0.1).p < 0.05


def collapse(epoch, learnt=5, recovered=None):
    return Collapse(learnt_at=learnt, collapsed_at=epoch, recovered_at=recovered, best=0.8, last=0.7)


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        ((20, 20, 20, 20, 30), "reproduced"),
        ((20, 20, 20, 20, 31), "in part"),
        ((20, 20, 20, 20, None), "in part"),
        ((None,) * 5, "not reproduced"),
        ((20, 20, 30), "suggestive, n = 3"),
    ],
)
def test_collapse_by_epoch_30(epochs, expected):
    assert collapse_verdict([collapse(epoch) for epoch in epochs], 30) == expected


def test_a_collapse_that_a_run_recovers_from_is_no_collapse_for_good():
    assert collapse_verdict([collapse(20)] * 5, 30) == "reproduced"
    assert collapse_verdict([collapse(20)] * 4 + [collapse(20, recovered=60)], 30) == "in part"


@pytest.mark.parametrize(
    ("geo", "others", "expected"),
    [
        ((None,) * 5, (20, 300), "reproduced"),
        ((None, None, None, None, 451), (20, 450), "reproduced"),
        ((None,) * 5, (20, None), "in part"),
        ((None, None, None, None, 450), (20, 300), "not reproduced"),
        ((None,) * 5, (None, None), "not tested: nothing collapsed"),
        ((None, None), (None, None), "not tested: nothing collapsed"),
        ((None, None, None), (20, 300), "suggestive, n = 3"),
    ],
)
def test_survival(geo, others, expected):
    assert survival_verdict([collapse(e) for e in geo], [collapse(e) for e in others], 450) == expected


def test_runs_that_never_learnt_have_not_survived():
    geo = [collapse(None)] * 5 + [collapse(None, learnt=None)]
    assert survival_verdict(geo, [collapse(20)], 450) == "not reproduced"
    assert collapse_verdict([collapse(None, learnt=None)] * 5, 30) == "not tested: n = 0"


def test_the_papers_cost_claim_is_apart_from_this_projects_aim():
    geo, coord = Interval(1.10, 1.09, 1.11), Interval(1.40, 1.30, 1.50)
    assert cost_verdict(geo, coord) == "reproduced"
    assert aim_verdict([geo, Interval(1.0, 1.0, 1.0)]) == "aim missed"
    assert aim_verdict([Interval(1.02, 1.01, 1.03)]) == "aim met"
    assert cost_verdict(geo, Interval(1.1, 1.0, 1.2)) == "not reproduced"
    assert cost_verdict(coord, geo) == "opposite"
    assert (count_verdict(True), count_verdict(False)) == ("reproduced", "not reproduced")


def test_verdicts_in_short():
    assert in_short(["in part", "in part"]) == "in part"
    assert in_short(["in part", "opposite", "in part"]) == "2 x in part; 1 x opposite"
