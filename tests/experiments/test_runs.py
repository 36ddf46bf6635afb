import json
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest
from experiments.results import read_results
from PIL import Image

from geopos_diffusers.errors import ConfigError, DataError

REPOSITORY = Path(__file__).parents[2]
TINY = {
    "seeds": 2,
    "matched_seeds": 1,
    "map_seeds": 1,
    "steps": 2,
    "batch_size": 2,
    "train_count": 16,
    "test_count": 4,
    "sweep_shifts": [0.0, 0.25],
}


def run(name, folder, monkeypatch, tiny=None, config=None, results_name=None, **changes):
    argv = ["run.py", "--config", str(REPOSITORY / "configs" / "experiments" / f"{config or name}.yaml")]
    results = folder / f"paper_{results_name or name}.json"
    argv += ["--output", str(folder / name), "--results", str(results)]
    for option, value in {**(tiny or TINY), **changes}.items():
        argv += [f"--{option}", *map(str, value if isinstance(value, list) else [value])]
    monkeypatch.setattr(sys, "argv", argv)
    import_module(f"experiments.{name}.run").main()
    return json.loads(results.read_text())


def test_experiments_and_their_page(tmp_path, monkeypatch):
    points = run("center_of_mass", tmp_path, monkeypatch, widths=[4, 4], shallow_widths=[4], map_shifts=[0.0, 0.25])
    numerals = run("positional_bias", tmp_path, monkeypatch, widths=[2, 4])
    assert (
        {run["kind"] for run in points["runs"]} == {run["kind"] for run in numerals["runs"]} == {"conv", "coord", "geo"}
    )
    assert {run["data"] for run in points["runs"]} >= {"all/everywhere", "all/three_quarters", "dense/everywhere"}
    losses = [run["scores"].pop("validation_loss") for run in numerals["runs"]]
    assert all(loss > 0 for loss in losses)
    assert all(0 <= value <= 1 for run in numerals["runs"] for value in run["scores"].values())
    chosen = points["chosen_on_validation"]["all/everywhere"]
    candidates = [
        run
        for run in points["runs"]
        if run["kind"] == "geo" and run["data"] == "all/everywhere" and run["head"] == "average"
        if run["widths"] == [4, 4] and run["seed"] == 0
    ]
    best = min(candidates, key=lambda run: run["scores"]["validation"])
    assert chosen == best["variant"]

    monkeypatch.setattr(sys, "argv", ["paper_report.py", "--results", str(tmp_path), "--output", str(tmp_path)])
    import_module("experiments.report").main()
    page = (tmp_path / "paper.md").read_text()
    assert all(f"| {claim} |" in page for claim in ("C1", "C2", "N1"))
    assert {path.stem for path in (tmp_path / "paper").iterdir()} == {
        "center_of_mass",
        "positional_bias",
        "sensitivity",
    }


OWN_RATES = {"learning_rates": [0.003, 0.03], "sweep_seeds": 1, "matched_seeds": 1, "seeds": 2}
POSITION = {"widths": [4, 4]}


@pytest.mark.parametrize(
    ("name", "options", "data", "matched"),
    [
        ("center_of_mass_rates", POSITION, ["all/everywhere", "all/three_quarters"], ["convolution, matched"]),
        ("positional_bias_rates", POSITION, ["tied"], []),
        pytest.param(
            *("depth", {"widths": [4, 8], "size": 16, "train_count": 8}, ["hands", "heads"], []), marks=pytest.mark.slow
        ),
    ],
)
def test_each_variant_at_its_own_rate_and_the_page(name, options, data, matched, tmp_path, monkeypatch):
    task = name.removesuffix("_rates")
    tiny = {key: value for key, value in TINY.items() if "sweep" not in key and "map" not in key}
    results = run(task, tmp_path, monkeypatch, tiny | OWN_RATES, config=name, results_name="own_rates", **options)
    variants = {run["variant"] for run in results["runs"]}
    bases = {"GeoConv", "GeoConv, no shift", "GeoConv, multilinear"}
    assert variants >= {"convolution", "CoordConv", *bases, *matched}
    rates = {(sweep["variant"], sweep["data"]): sweep["learning_rate"] for sweep in results["rates"]}
    assert rates.keys() == {(variant, each) for variant in variants for each in data}
    assert all(run["learning_rate"] == rates[run["variant"], run["data"]] for run in results["runs"])
    counts = Counter((run["variant"], run["data"]) for run in results["runs"])
    assert all(counts[key] == (1 if "matched" in key[0] else 2) for key in rates)

    monkeypatch.setattr(sys, "argv", ["report.py", "--results", str(tmp_path), "--output", str(tmp_path)])
    import_module("experiments.report").main()
    page = (tmp_path / "paper" / "own_rates.md").read_text()
    assert "at own rates, 2 steps" in page
    assert all(f"| {variant} |" in page for variant in variants)
    with Image.open(tmp_path / "paper_own_rates_sweeps.png") as figure:
        assert figure.width > 500


DEPTH = {name: value for name, value in TINY.items() if name not in ("map_seeds", "sweep_shifts")}
DEPTH |= {"seeds": 1, "widths": [4, 8], "size": 16, "train_count": 8, "score_every": 1}


def test_depth_stopped_and_continued(tmp_path, monkeypatch):
    whole = run("depth", tmp_path / "whole", monkeypatch, DEPTH)
    runs = [(run["data"], run["variant"], run["seed"]) for run in whole["runs"]]
    assert len(set(runs)) == len(runs) == 2 * (4 + 2)
    assert {run[0] for run in runs} == {"hands", "heads"}
    for data, errors in whole["constant"].items():
        found = [run["scores"] for run in whole["runs"] if run["data"] == data]
        assert all(score.keys() == {"validation", *errors} - {"depth"} for score in found)
        assert all(0 <= score[f"delta_{t}"] <= 1 for score in [errors, *found] for t in ("1.05", "1.25"))
    picture = tmp_path / "whole" / "paper_depth_samples.png"
    with Image.open(picture) as sheet:
        assert sheet.width > 8 * 128  # four hands and four heads

    with pytest.raises(FileNotFoundError):  # no run is finished, so there are no results
        run("depth", tmp_path / "parts", monkeypatch, DEPTH, stop_at_step=1)
    again = run("depth", tmp_path / "parts", monkeypatch, DEPTH)
    assert [(run["scores"], run["curves"]) for run in again["runs"]] == [
        (run["scores"], run["curves"]) for run in whole["runs"]
    ]
    assert (tmp_path / "parts" / picture.name).read_bytes() == picture.read_bytes()

    monkeypatch.setattr(
        sys, "argv", ["paper_report.py", "--results", str(picture.parent), "--output", str(picture.parent)]
    )
    import_module("experiments.report").main()
    page = (picture.parent / "paper" / "depth.md").read_text()
    assert page.count("| C6 |") == 4
    assert f"](../{picture.name})" in page

    for file in (tmp_path / "whole" / "depth").rglob("predictions.safetensors"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match=r"predictions\.safetensors is missing or damaged"):
        run("depth", tmp_path / "whole", monkeypatch, DEPTH)


def test_bad_input_is_one_line_and_exit_code_2(tmp_path):
    command = [sys.executable, "-m", "scripts.experiments.report", "--results", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "holds no results" in result.stderr


def test_bad_option(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="max_train_steps must be a whole number >= 1; got 0"):
        run("positional_bias", tmp_path, monkeypatch, steps=0)


def test_benchmark(tmp_path, monkeypatch, capsys):
    output = tmp_path / "cost.json"
    monkeypatch.setattr(
        sys, "argv", ["benchmark_baselines.py", "--rounds", "1", "--steps", "1", "--results", str(output)]
    )
    script = import_module("experiments.cost.run")
    setting = script.Setting((2, 3), 8, 2, script.build_position_network, script.position_step)
    gan = script.Setting((2, 3, 4), 32, 2, script.build_gan, script.gan_step)
    monkeypatch.setattr(script, "SETTINGS", {"centre of mass": setting, "GAN": gan})
    script.main()
    results = read_results(output, "cost")
    # Filters of 4 x 4: of three channels and the image's in the generator, of three widths in the discriminator.
    taps = {"centre of mass": 9 * (2 + 3), "GAN": 16 * (3 + 2 + 3 + 2 + 3 + 4)}
    assert {network["name"]: network["kernel_taps"] for network in results["networks"]} == taps
    for network, count in taps.items():
        runs = {run["variant"]: run for run in results["runs"] if run["network"] == network}
        more = {name: run["parameters"] - runs["convolution"]["parameters"] for name, run in runs.items()}
        assert more == {
            **{"convolution": 0, "GeoConv": count},
            **dict.fromkeys(("CoordConv, computed as GeoConv is", "CoordConv by concatenation"), 2 * count),
        }
        assert runs["convolution"]["ratio"] == 1
