import pytest
from experiments.gan.results import draw_survival, summarise


def run(covered: list[float], collapsed_at: int | None, seed: int = 0) -> dict:
    return {
        "variant": "geo",
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


def test_summary_by_hand():
    summary = summarise([run([0.5, 0.6, 0.6, 0.6, 0.8], None), run([0.5, 0.2, 0.2, 0.2, 0.4], 200, seed=1)])
    assert summary["collapsed_at"] == [None, 200]
    assert (summary["runs"], summary["learnt"], summary["collapsed"], summary["parameters"]) == (2, 2, 1, 15)
    assert summary["surviving_share"] == {"30": 1.0, "250": 0.5, "300": 0.5, "450": 0.5}
    # The last fifth of 500 epochs begins after epoch 400.
    assert summary["last_fifth"]["covered"] == {"mean": pytest.approx(0.6), "runs": [0.8, 0.4]}
    assert summary["last_fifth"]["kid"] == {"mean": 2.5, "runs": [2.0, 3.0]}


def test_survival_of_runs_that_never_learnt_is_unknown(tmp_path):
    never = run([0.1] * 5, None)
    never["collapse"]["learnt_at"] = None
    assert summarise([never])["surviving_share"] == dict.fromkeys(("30", "250", "300", "450"))
    draw_survival(
        {"runs": [never], "variants": {"geo": {}}, "settings": {"epochs": 500}, "data": {"name": "none"}},
        tmp_path / "survival.png",
    )
    assert (tmp_path / "survival.png").stat().st_size > 1000
