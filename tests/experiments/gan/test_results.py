import math

import pytest
from experiments.gan.collapse import Collapse, surviving_share
from experiments.gan.figures import draw_survival, late_scores
from experiments.gan.network import VARIANTS, variant_title


def run(covered: list[float], collapsed_at: int | None, seed: int = 0) -> dict:
    return {
        "variant": "GeoConv",
        "seed": seed,
        "epochs": 500,
        "parameters": {"generator": 10, "discriminator": 5},
        "collapse": {
            "learnt_at": 100,
            "collapsed_at": collapsed_at,
            "recovered_at": None,
            "best": max(covered),
            "last": covered[-1],
        },
        "curves": {"epoch": [100, 200, 300, 400, 500], "covered": covered},
        "scores_at_some_epochs": {"kid": {"200": 9.0, "500": 2.0 + seed}},
    }


def test_late_scores_by_hand():
    # The last fifth of 500 epochs begins after epoch 400.
    assert late_scores(run([0.5, 0.6, 0.6, 0.6, 0.8], None)) == {"covered": pytest.approx(0.8), "kid": 2.0}


def test_survival_of_runs_that_never_learnt_is_unknown(tmp_path):
    never = run([0.1] * 5, None)
    never["collapse"]["learnt_at"] = None
    assert math.isnan(surviving_share([Collapse(**never["collapse"])], 30))
    draw_survival(
        {"runs": [never], "settings": {"epochs": 500}, "data": {"name": "none"}},
        tmp_path / "survival.png",
    )
    assert (tmp_path / "survival.png").stat().st_size > 1000


def test_variants_have_the_names_of_the_other_experiments():
    assert [variant_title(variant) for variant in VARIANTS] == [
        "convolution", "CoordConv", "GeoConv", "GeoConv, no shift", "convolution, matched", "GeoConv, matched",
    ]  # fmt: skip
