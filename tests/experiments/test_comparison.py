import json

import pytest
import torch
from experiments.baselines.position_network import PositionNetwork, PositionTrial
from experiments.center_of_mass.data import draw_points
from experiments.comparison import ComparisonArguments, Task, run_folder, run_trials, score_sets, write_results
from safetensors.torch import load_file
from torch.nn.functional import mse_loss

from geopos_diffusers.errors import ConfigError, DataError
from geopos_diffusers.training.loss_log import read_losses
from geopos_diffusers.training.tracking import build_accelerator

TRIALS = [
    PositionTrial(data="all/everywhere", head="average", widths=(4, 4), kind=kind, seed=seed)
    for kind, seed in (("conv", 0), ("coord", 0), ("geo", 0), ("geo", 1))
]


def arguments(folder, **changes):
    values = {"steps": 6, "batch_size": 4, "train_count": 32, "test_count": 8, "size": 16, "warmup_steps": 2}
    values |= {"output_dir": str(folder / "runs"), "results": str(folder / "results.json"), **changes}
    return ComparisonArguments(**values)


def run(args, trials=TRIALS, finish=None):
    def draw(data):
        return draw_points(args.train_count, args.size, *data.split("/"), seed=1)

    def sets(data):
        return {"validation": draw(data), "test": draw(data)}

    task = Task(
        build=lambda trial: PositionNetwork(trial.widths, 2, trial.head, args.size),
        loss=lambda outputs, targets: {"loss": mse_loss(outputs, targets)},
        train_set=draw,
        scores=lambda network, trial: score_sets(network, sets(trial.data), mse_loss),
        finish=finish,
    )
    return run_trials(trials, task, args, build_accelerator(args.output_dir, None, 1, "none"), "runs")


def without_times(records):
    return [{key: value for key, value in record.items() if "seconds" not in key} for record in records]


def weights(folder):
    paths = sorted((folder / "runs").glob("*/checkpoint-6/training_state/weights.safetensors"))
    return {path.parents[2].name: load_file(path) for path in paths}


def test_stopped_runs_continue_exactly(tmp_path):
    whole = run(arguments(tmp_path / "whole"))
    assert run(arguments(tmp_path / "parts", stop_at_step=3)) == []
    torch.manual_seed(12345)
    resumed = run(arguments(tmp_path / "parts"))
    assert without_times(resumed) == without_times(whole)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert len(first) == len(TRIALS)
    assert first.keys() == second.keys()
    for name, values in first.items():
        assert all(torch.equal(values[key], second[name][key]) for key in values)


def test_finished_runs_are_skipped_and_repeated_ones_made_once(tmp_path):
    first = run(arguments(tmp_path))
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    assert run(arguments(tmp_path), [*TRIALS, *TRIALS]) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()} == files


def test_other_settings_are_other_runs(tmp_path):
    run(arguments(tmp_path), TRIALS[:1])
    run(arguments(tmp_path, learning_rate=1e-3), TRIALS[:1])
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_kinds_and_seeds_give_different_scores(tmp_path):
    losses = [record["scores"]["test"] for record in run(arguments(tmp_path))]
    assert len(set(losses)) == len(TRIALS)
    assert all(0 < loss < 2 for loss in losses)


def test_results_file(tmp_path):
    args = arguments(tmp_path)
    records = run(args)
    write_results("center_of_mass", records, args, head="average")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["runs"] == records
    assert results["settings"]["steps"] == 6
    assert results["head"] == "average"
    assert results["cpu_seconds"] == pytest.approx(sum(record["cpu_seconds"] for record in records), abs=0.05)
    assert str(tmp_path) not in json.dumps(results["settings"])
    geo = next(record for record in records if record["kind"] == "geo")
    conv = next(record for record in records if record["kind"] == "conv")
    assert geo["encoding"] == "product"
    assert "encoding" not in conv
    assert geo["parameters"] - conv["parameters"] == 9 * (4 + 4)


def test_curves_hold_scores_and_mean_losses_and_are_the_same_after_a_stop(tmp_path):
    (whole,) = run(arguments(tmp_path / "whole", score_every=2, steps=5), TRIALS[2:3])
    assert run(arguments(tmp_path / "parts", score_every=2, steps=5, stop_at_step=3), TRIALS[2:3]) == []
    (resumed,) = run(arguments(tmp_path / "parts", score_every=2, steps=5), TRIALS[2:3])
    curves = whole["curves"]
    assert resumed["curves"] == curves
    assert curves["step"] == [2, 4, 5]
    assert curves["test"][-1] == pytest.approx(whole["scores"]["test"], rel=1e-4)
    lines = read_losses(next((tmp_path / "whole").rglob("losses.jsonl")))
    losses = [line["loss"] for line in lines]
    assert curves["train_loss"] == pytest.approx([sum(losses[:2]) / 2, sum(losses[2:4]) / 2, losses[4]], rel=1e-4)
    assert set(curves) == {"step", "test", "validation", "train_loss"}


def test_a_trained_network_can_add_to_its_record(tmp_path):
    def finish(network, trial, folder):
        assert not network.training
        (folder / "sample.txt").write_text(trial.kind)
        return {"bias": network.linear.bias.tolist()}

    (record,) = run(arguments(tmp_path), TRIALS[:1], finish)
    trained = next(iter(weights(tmp_path).values()))
    assert record["bias"] == trained["network.linear.bias"].tolist()
    assert next((tmp_path / "runs").glob("*/sample.txt")).read_text() == "conv"


def test_damaged_record(tmp_path):
    run(arguments(tmp_path), TRIALS[:1])
    next((tmp_path / "runs").glob("*/record.json")).write_text("{")
    with pytest.raises(DataError, match="damaged"):
        run(arguments(tmp_path), TRIALS[:1])


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("seeds", "num_seeds"),
        ("steps", "max_train_steps"),
        ("batch_size", "batch_size"),
        ("size", "size"),
        ("score_every", "validation_steps"),
    ],
)
def test_counts_must_be_positive(tmp_path, name, shown):
    with pytest.raises(ConfigError, match=f"^{shown} must be a whole number >= 1; got 0"):
        arguments(tmp_path, **{name: 0})


def test_folder_names_stay(tmp_path):
    """Runs that are stored on disk are found again: their names are functions of trial and settings."""
    args = ComparisonArguments(output_dir="o", results="r")
    assert run_folder(TRIALS[0], args).name == "conv-seed0-f12d4b5cc1ed"


def test_overwrite_makes_each_run_anew_once(tmp_path):
    first = run(arguments(tmp_path))
    args, folder = arguments(tmp_path, overwrite=True), tmp_path / "runs"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/record.json")}
    assert without_times(run(args)) == without_times(first)
    after = {path: path.stat().st_mtime_ns for path in folder.glob("*/record.json")}
    assert before.keys() == after.keys()
    assert all(after[path] > before[path] for path in before)
    run(args)  # a later part of the same program needs the runs that an earlier one made
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/record.json")} == after
    with pytest.raises(ConfigError, match="give one of them"):
        arguments(tmp_path, overwrite=True, finished_only=True)
