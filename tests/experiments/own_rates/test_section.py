import math

import numpy as np
import pytest
from experiments.own_rates.section import (
    MEASURES,
    basis_rows,
    change_rows,
    claim_rows,
    compare,
    rate_rows,
    score_rows,
    values_by_seed,
)
from experiments.verdict import judge
from scipy.stats import ttest_rel

from geopos_diffusers.errors import DataError

VARIANTS = {"convolution": 1.0, "CoordConv": 1.2, "GeoConv": 0.8}
EVERYWHERE = MEASURES["center_of_mass"][0]


def results(seeds=5, factor=1.0, **changes):
    """Losses with noise that seeds share: only pairing shows GeoConv's 0.8 of the convolution's."""
    noise = np.random.default_rng(0).normal(0, (0.5, 0.01), (seeds, 2))
    runs = [
        {
            "variant": name, "data": "all/everywhere", "head": "average", "widths": [4, 8], "seed": seed,
            "parameters": 1000, "learning_rate": 0.01,
            "scores": {"all/everywhere": factor * value * math.exp(shared + (own if name == "GeoConv" else 0.0))},
        }
        for name, value in VARIANTS.items()
        for seed, (shared, own) in enumerate(noise)
    ]  # fmt: skip
    rates = [
        {"variant": name, "data": "all/everywhere", "learning_rate": 0.01, "bracketed": name != "GeoConv"}
        | {"seeds": [1000], "losses": {"0.005": 2.0, "0.01": 1.0, "0.02": None}}
        for name in VARIANTS
    ]
    return {"task": "center_of_mass", "settings": {"widths": [4, 8]}, "rates": rates, "runs": runs, **changes}


def test_ratio_is_of_pairs_with_the_t_interval_of_the_logarithms():
    found = compare(results(), EVERYWHERE, "GeoConv", "convolution")
    logs = [np.log(list(values_by_seed(results(), EVERYWHERE, name).values())) for name in ("GeoConv", "convolution")]
    low, high = np.exp(ttest_rel(*logs).confidence_interval(0.95))
    assert found.count == 5
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.value == pytest.approx(math.exp(np.mean(logs[0] - logs[1])))
    assert 0.75 < found.low < 0.8 < found.high < 0.85


def test_accuracies_are_compared_by_differences_and_bias_is_of_the_runs_that_learnt():
    runs = [
        {
            "variant": name, "data": "tied", "widths": [4], "seed": seed, "parameters": 10, "learning_rate": 0.01,
            "scores": {"validation": 0.1 if seed == 3 else 0.9, "tied": 0.9, "swapped": swapped, "outside": 0.2},
        }
        for name, swapped in (("CoordConv", 0.0), ("GeoConv", 0.4))
        for seed in range(4)
    ]  # fmt: skip
    values = results(task="positional_bias", runs=runs, settings={"widths": [4]})
    accuracy, bias = MEASURES["positional_bias"][1], MEASURES["positional_bias"][-1]
    assert compare(values, accuracy, "GeoConv", "CoordConv").count == 4
    found = compare(values, bias, "GeoConv", "CoordConv")
    assert (found.value, found.count) == (pytest.approx(-0.4), 3)


def test_tables():
    rows = {row[1]: row for row in score_rows(results())}
    assert rows["convolution"][:5] == ("loss x 1000, points everywhere", "convolution", "1,000", "5", "0.01")
    assert rows["convolution"][6] == ""
    assert rows["CoordConv"][6] == "1.20"  # the same in every pair
    assert rows["GeoConv"][6].startswith("0.80 [0.79")
    sweeps = {row[1]: row[2:] for row in rate_rows(results())}
    assert sweeps["convolution"] == ("0.01", "0.005: 2, 0.01: 1, 0.02: diverged")
    assert sweeps["GeoConv"][0] == "0.01 (not bracketed)"


def test_the_multilinear_basis_is_compared_with_taps():
    values = results()
    assert basis_rows(values) == []
    for run in [run for run in values["runs"] if run["variant"] == "GeoConv"]:
        losses = {name: 1.5 * loss for name, loss in run["scores"].items()}
        values["runs"].append({**run, "variant": "GeoConv, multilinear", "scores": losses})
    label = "loss x 1000, points everywhere"
    assert basis_rows(values) == [(label, "GeoConv, multilinear", "GeoConv", "1.50", "5")]


def test_what_changed_beside_one_rate_for_all():
    common = results(seeds=3)
    common["runs"] = [run for run in common["runs"] if run["variant"] != "GeoConv"]
    shallow = [{**run, "widths": [4], "scores": {"all/everywhere": 9.0}} for run in common["runs"]]
    common["runs"] += shallow
    assert change_rows(results(), common) == [
        ("loss x 1000, points everywhere", "CoordConv", "convolution", "1.20, n = 3", "1.20, n = 5"),
    ]


def test_runs_that_differ_in_more_than_the_seed_are_not_mixed():
    values = results()
    values["runs"].append(values["runs"][0])
    with pytest.raises(DataError, match="share seeds"):
        values_by_seed(values, EVERYWHERE, "convolution")


def test_claims_at_own_rates_are_judged():
    """GeoConv has 0.8 of the convolution's loss and 2 / 3 of CoordConv's; the paper says 0.54 and 0.43."""
    found = results(settings={"widths": [4, 8], "steps": 9})
    rows = [row for row in claim_rows(found) if row.seeds]
    assert [(row.paper, row.setting.split("; ")[1]) for row in rows] == [
        ("-46%", "points everywhere"),
        ("-57%", "points everywhere"),
    ]
    assert {judged.verdict for judged in judge([row.test for row in rows])} == {"in part"}
    assert claim_rows(results(task="depth")) == []


def test_a_smaller_error_is_judged_in_both_bases():
    runs = [
        {
            "variant": variant,
            "seed": seed,
            "data": "hands",
            "widths": [4, 8],
            "scores": {"abs_rel": error * (1 + seed / 99)},
        }
        for variant, error in {
            "convolution": 0.2,
            "CoordConv": 0.3,
            "GeoConv": 0.1,
            "GeoConv, multilinear": 0.25,
        }.items()
        for seed in range(5)
    ]
    found = {"task": "depth", "settings": {"widths": [4, 8], "steps": 9}, "runs": runs}
    rows = claim_rows(found)
    assert [row.claim for row in rows][:2] == [
        "depth: AbsRel of GeoConv by that of convolution",
        "depth: AbsRel of GeoConv by that of CoordConv",
    ]
    verdicts = [judged.verdict for judged in judge([row.test for row in rows])]
    assert verdicts == ["reproduced", "reproduced", "opposite", "reproduced"]
