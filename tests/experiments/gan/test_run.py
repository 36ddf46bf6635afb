import json
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from geopos_diffusers.errors import ConfigError, DataError

REPOSITORY = Path(__file__).parents[3]
TINY = {
    "limit": 40,
    "width": 4,
    "latent_size": 8,
    "epochs": 6,
    "batch_size": 16,
    "evaluate_every": 2,
    "samples": 24,
    "bins": 4,
    "pairs": 10,
    "checkpoint_every": 2,
    "variants": ["conv", "geo"],
    "seeds": [0],
}


@pytest.fixture(scope="module")
def script():
    return import_module("experiments.gan.run")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """48 noisy images of four colours, of which TINY takes 40."""
    folder = tmp_path_factory.mktemp("images")
    generator, lines = np.random.default_rng(0), []
    for index in range(48):
        color = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40)][index % 4])
        pixels = (color + generator.integers(0, 50, (32, 32, 3))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", "text": "a colour"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def run(script, images, output, **changes):
    program = REPOSITORY / "scripts" / "experiments" / "gan" / "run.py"
    argv = [str(program), "--dataset", str(images), "--output", str(output)]
    for name, value in {**TINY, **changes}.items():
        argv += [f"--{name}", *(str(item) for item in (value if isinstance(value, list) else [value]))]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, "argv", argv)
        script.main()


def log_of(output, run_name):
    lines = (output / run_name / "losses.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.endswith("seconds")} for line in lines]


@pytest.fixture(scope="module")
def whole(script, images, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    run(script, images, output, results=output / "docs" / "gan_test", publish_samples=True, data_name="colours")
    return output


@pytest.fixture(scope="module")
def results(whole):
    return json.loads((whole / "docs" / "gan_test.json").read_text(encoding="utf-8"))


class TestRun:
    def test_one_folder_a_run_with_log_and_grids(self, whole):
        for name in ("conv-seed0", "geo-seed0"):
            log = log_of(whole, name)
            assert [line["epoch"] for line in log] == [1, 2, 3, 4, 5, 6]
            # 40 images an epoch in batches of 16, across the ends of epochs: 2.5 steps each.
            assert [line["step"] for line in log] == [2, 5, 7, 10, 12, 15]
            assert [line["epoch"] for line in log if "covered" in line] == [2, 4, 6]
            assert Image.open(whole / name / "samples-00006.png").size == (128, 128)
            assert [folder.name for folder in (whole / name).glob("checkpoint-*")] == ["checkpoint-6"]

    def test_only_geo_is_also_scored_with_shifts(self, whole):
        assert "shifted_covered" not in log_of(whole, "conv-seed0")[-1]
        assert "shifted_covered" in log_of(whole, "geo-seed0")[-1]

    @pytest.mark.parametrize("variant", ["conv", "geo"])
    def test_continued_run_is_the_uninterrupted_one(self, script, images, whole, tmp_path, variant):
        run(script, images, tmp_path, variants=[variant], stop_at_epoch=3)
        assert len(log_of(tmp_path, f"{variant}-seed0")) == 3
        run(script, images, tmp_path, variants=[variant])
        assert log_of(tmp_path, f"{variant}-seed0") == log_of(whole, f"{variant}-seed0")
        for name in ("weights", "optimizer", "buffers", "random_states"):
            ours, theirs = (
                load_file(output / f"{variant}-seed0" / "checkpoint-6" / "training_state" / f"{name}.safetensors")
                for output in (tmp_path, whole)
            )
            assert all((ours[key] == value).all() for key, value in theirs.items())

    def test_more_epochs_continue_a_finished_run(self, script, images, whole, tmp_path):
        run(script, images, tmp_path, variants=["conv"], epochs=4)
        run(script, images, tmp_path, variants=["conv"])
        assert log_of(tmp_path, "conv-seed0") == log_of(whole, "conv-seed0")

    def test_checkpoints_are_no_pickles(self, whole):
        suffixes = {path.suffix for path in (whole / "geo-seed0").rglob("*") if path.is_file()}
        assert suffixes == {".safetensors", ".json", ".jsonl", ".png"}

    def test_finished_run_is_skipped(self, script, images, whole):
        before = (whole / "geo-seed0" / "checkpoint-6" / "training_state" / "state.json").stat().st_mtime_ns
        run(script, images, whole)
        assert (whole / "geo-seed0" / "checkpoint-6" / "training_state" / "state.json").stat().st_mtime_ns == before

    def test_overwrite_begins_anew(self, script, images, whole, tmp_path):
        run(script, images, tmp_path, variants=["conv"], learning_rate=0.1, epochs=2)
        run(script, images, tmp_path, variants=["conv"], overwrite=True)
        assert log_of(tmp_path, "conv-seed0") == log_of(whole, "conv-seed0")
        assert not (tmp_path / "conv-seed0" / "checkpoint-2").exists()

    def test_other_settings_do_not_continue_a_run(self, script, images, whole):
        with pytest.raises(ConfigError, match="learning_rate"):
            run(script, images, whole, learning_rate=0.1)


class TestResults:
    def test_all_runs_with_their_curves(self, results):
        assert [(run["variant"], run["seed"], run["epochs"]) for run in results["runs"]] == [
            ("convolution", 0, 6),
            ("GeoConv", 0, 6),
        ]
        for run_results in results["runs"]:
            assert run_results["curves"]["epoch"] == [2, 4, 6]
            assert {"covered", "jensen_shannon", "recall", "coverage", "vendi", "ms_ssim"} <= set(run_results["curves"])
        assert results["runs"][1]["scores_at_some_epochs"]["shifted_vendi"].keys() == {"6"}
        plain, geo = (sum(run["parameters"].values()) for run in results["runs"])
        assert geo > plain

    def test_no_paths_of_the_machine(self, whole, images, results):
        text = json.dumps(results)
        assert str(whole.parent) not in text
        assert str(images) not in text
        assert results["command"].startswith("python -m scripts.experiments.gan.run --dataset images")
        assert results["settings"]["width"] == 4
        assert results["data"] == {"name": "colours", "images": 40}

    def test_figures(self, whole):
        for name in ("curves", "survival", "film"):
            file = whole / "docs" / f"gan_test-{name}.png"
            assert Image.open(file).width > 400
            assert file.stat().st_size < 300_000

    def test_samples_are_published_only_when_asked(self, script, images, whole, tmp_path):
        run(script, images, whole, results=tmp_path / "gan", results_only=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["gan-curves.png", "gan-survival.png", "gan.json"]

    def test_unfinished_runs_are_left_out(self, script, images, whole, tmp_path):
        run(script, images, whole, results=tmp_path / "gan", results_only=True, seeds=[0, 1], epochs=4)
        results = json.loads((tmp_path / "gan.json").read_text(encoding="utf-8"))
        assert [run["curves"]["epoch"] for run in results["runs"]] == [[2, 4], [2, 4]]
        with pytest.raises(DataError, match="no finished run"):
            run(script, images, whole, results=tmp_path / "gan", results_only=True, epochs=8)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"variants": ["cord"]}, ConfigError),
        ({"seeds": [1, 1]}, ConfigError),
        ({"size": 48}, ConfigError),
        ({"shift_range": -1}, ConfigError),
        ({"mobilenet_every": 3}, ConfigError),
        ({"batch_size": 64}, DataError),
        ({"bins": 20}, DataError),
        ({"train_data": "/nowhere/at/all"}, DataError),
    ],
)
def test_bad_options_are_refused(script, images, tmp_path, changes, error):
    with pytest.raises(error):
        run(script, images, tmp_path, **changes)
