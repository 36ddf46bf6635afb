"""From rendered hands to the page of the claims, with tiny denoisers."""

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
TINY = {
    "seeds": 2, "steps": 2, "batch_size": 2, "train_count": 8, "test_count": 16, "samples": 16, "sample_steps": 2,
    "warmup_steps": 1, "learning_rates": [0.001, 0.002], "sweep_seeds": 1,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("network", "widths"), [("unet", [8, 16]), ("transformer-without-positions", [32])])
def test_denoisers_and_their_page(network, widths, tmp_path, monkeypatch):
    config = REPOSITORY / "configs" / "experiments" / f"diffusion_{network.split('-')[0]}.yaml"
    results = tmp_path / "paper_own_rates_diffusion.json"
    words = ["--config", config, "--output", tmp_path / "runs", "--results", results, "--network", network]
    for name, value in (TINY | {"widths": widths}).items():
        words += [f"--{name}", *(value if isinstance(value, list) else [value])]
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, words)])
    import_module("experiments.diffusion.run").main()
    found = json.loads(results.read_text())
    variants = ["convolution", "CoordConv", "GeoConv", "GeoConv, multilinear"]
    assert [(run["variant"], run["seed"]) for run in found["runs"]] == [(name, n) for n in (0, 1) for name in variants]
    assert all(run["scores"]["test"] > 0 for run in found["runs"])
    assert all(0 <= run["sample_scores"]["found"] <= 1 for run in found["runs"])
    assert found["real"]["found"] == 1  # rendered hands, through the autoencoder
    assert found["real"]["well_formed"] > 0.6
    assert not results.with_suffix(".png").exists()  # two steps draw no hands

    monkeypatch.setattr(sys, "argv", ["report.py", "--results", str(tmp_path), "--output", str(tmp_path)])
    import_module("experiments.report").main()
    page = (tmp_path / "paper" / "diffusion.md").read_text()
    claim = "C6" if network == "unet" else "N2"
    assert page.count(f"| {claim} | diffusion from random weights") == 8
    assert page.count("not tested: no network draws hands yet") == 4
    assert "the images show no hands" in page
    assert f"| {claim} |" in (tmp_path / "paper.md").read_text()
    assert not (tmp_path / "paper" / "own_rates.md").exists()
