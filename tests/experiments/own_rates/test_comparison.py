import json

import pytest
import torch
from experiments.baselines.position_network import PositionNetwork, PositionTrial
from experiments.comparison import ComparisonArguments, Task, run_trials, score_sets
from experiments.own_rates.comparison import run_at_own_rates
from torch.nn.functional import mse_loss

from geopos_diffusers.errors import ConfigError, DivergedError
from geopos_diffusers.training.tracking import build_accelerator

SCALES = {"small": 1.0, "large": 300.0}  # of the targets: large ones need a higher rate in a few steps


def arguments(folder, **changes):
    values = {"steps": 8, "batch_size": 4, "train_count": 16, "test_count": 8, "size": 8, "warmup_steps": 1}
    values |= {"learning_rates": [0.01, 0.1], "seeds": 2, "sweep_seeds": 2}
    return ComparisonArguments(
        **{"output_dir": str(folder / "runs"), "results": str(folder / "results.json"), **values, **changes}
    )


def trials(seed):
    for data in SCALES:
        shared = {"data": data, "head": "average", "widths": (4,), "seed": seed}
        yield PositionTrial(kind="conv", **shared)
        if seed < 1:
            yield PositionTrial(kind="geo-multilinear", **shared)


def task(args, finish=None):
    def draw(data):
        images = torch.rand(args.train_count, 1, args.size, args.size, generator=torch.Generator().manual_seed(0))
        return images, SCALES[data] * images.mean((2, 3)).repeat(1, 2)

    return Task(
        build=lambda trial: PositionNetwork(trial.widths, 2, trial.head, args.size),
        loss=lambda outputs, targets: {"loss": mse_loss(outputs, targets)},
        train_set=draw,
        scores=lambda network, trial: score_sets(network, {"held_out": draw(trial.data)}, mse_loss),
        finish=finish,
        chosen_by="held_out",
    )


def run(args, finish=None):
    accelerator = build_accelerator(args.output_dir, None, 1, "none")
    return run_at_own_rates("points", trials, task(args, finish), args, accelerator)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own_rates")
    run(arguments(folder))
    return json.loads((folder / "results.json").read_text()) | {"folder": folder}


def test_each_variant_has_the_best_rate_of_its_own_sweep(results):
    rates = {(sweep["variant"], sweep["data"]): sweep for sweep in results["rates"]}
    assert rates.keys() == {(name, data) for name in ("convolution", "GeoConv, multilinear") for data in SCALES}
    for sweep in rates.values():
        losses = {float(rate): loss for rate, loss in sweep["losses"].items()}
        assert sweep["learning_rate"] == min(losses, key=losses.get)
    assert rates["convolution", "small"]["learning_rate"] < rates["convolution", "large"]["learning_rate"]
    found = [(run["variant"], run["data"], run["seed"]) for run in results["runs"]]
    both_seeds = [(*key, seed) for key in rates for seed in ((0, 1) if key[0] == "convolution" else (0,))]
    assert sorted(found) == sorted(both_seeds)
    assert all(run["learning_rate"] == rates[run["variant"], run["data"]]["learning_rate"] for run in results["runs"])


def test_the_grid_grows_until_the_best_rate_is_inside(results):
    for sweep in results["rates"]:
        rates = [float(rate) for rate in sweep["losses"]]
        assert {0.01, 0.1} < set(rates)
        assert sweep["bracketed"] is (min(rates) < sweep["learning_rate"] < max(rates))
        assert sweep["bracketed"]


def test_the_sweep_has_seeds_and_runs_of_its_own(results):
    records = [json.loads(path.read_text()) for path in (results["folder"] / "runs").glob("*/record.json")]
    seeds = {seed for sweep in results["rates"] for seed in sweep["seeds"]}
    assert len(seeds) == 2
    assert not seeds & {run["seed"] for run in results["runs"]}
    for sweep in results["rates"]:
        for rate, loss in sweep["losses"].items():
            runs = [
                run["scores"]["held_out"]
                for run in records
                if run["seed"] in seeds and run["learning_rate"] == float(rate)
                if (run["variant"], run["data"]) == (sweep["variant"], sweep["data"])
            ]
            assert loss == pytest.approx(sum(runs) / 2, rel=1e-4)
    assert results["cpu_seconds"] == pytest.approx(sum(run["cpu_seconds"] for run in records), abs=0.05)


def test_stopped_sweeps_and_runs_continue_exactly(results, tmp_path):
    assert run(arguments(tmp_path, stop_at_step=3)) == []
    assert not (tmp_path / "results.json").exists()
    run(arguments(tmp_path))
    again = json.loads((tmp_path / "results.json").read_text())
    assert again["rates"] == results["rates"]
    assert [(run["variant"], run["scores"]) for run in again["runs"]] == [
        (run["variant"], run["scores"]) for run in results["runs"]
    ]


def test_only_the_comparison_is_finished_with_more_scores(tmp_path):
    seen = []

    def finish(network, trial, folder):
        seen.append(trial.seed)
        return {"finished": True}

    records = run(arguments(tmp_path, seeds=1, steps=2), finish)
    assert seen == [0] * 4
    assert all(record["finished"] for record in records)


def test_a_rate_that_diverges_is_not_chosen(tmp_path):
    rates = [1e-2, 1e20]
    run(arguments(tmp_path, learning_rates=rates, seeds=1, sweep_seeds=1, steps=3))
    results = json.loads((tmp_path / "results.json").read_text())
    assert all(sweep["losses"]["1e+20"] is None and sweep["learning_rate"] < 1e20 for sweep in results["rates"])


def test_a_run_of_the_comparison_that_diverges_says_so(tmp_path):
    args, (trial, *_) = arguments(tmp_path, learning_rate=1e20), trials(0)
    accelerator = build_accelerator(args.output_dir, None, 1, "none")
    with pytest.raises(DivergedError, match=r"conv-seed0-\w+: the loss is (inf|nan) at step \d"):
        run_trials([trial], task(args), args, accelerator, "runs")


def test_seeds_that_reach_those_of_the_sweep_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="seeds must be at most 1000"):
        run(arguments(tmp_path, seeds=1001))


@pytest.mark.parametrize("rates", [[0.01, 0.0], [float("nan")], [-1.0]])
def test_rates_must_be_positive(tmp_path, rates):
    with pytest.raises(ConfigError, match="learning_rates must be a list of numbers > 0"):
        arguments(tmp_path, learning_rates=rates)
