"""The paper's experiments in two real processes on the CPU, started by `accelerate launch`, beside one process."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[2]
WRITTEN = {"positional_bias": 2, "gan": 3}  # files that are written, by one process alone
LAUNCHERS = {1: [], 2: ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]}


def launch(processes: int, experiment: str, **options) -> None:
    command = [sys.executable, *LAUNCHERS[processes], "-m", f"scripts.experiments.{experiment}.run"]
    for name, value in options.items():
        command += [f"--{name}", *(value if isinstance(value, list) else [value])]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-3000:]
    if "results" in options:
        assert done.stdout.count("wrote ") == WRITTEN[experiment]


@pytest.mark.slow
def test_gradients_are_averaged(tmp_path):
    """Kinds without random shifts learn the same, since two halves of a batch are a batch."""
    runs = {}
    for processes in LAUNCHERS:
        results = tmp_path / f"{processes}.json"
        launch(
            processes,
            "positional_bias",
            config=REPOSITORY / "configs" / "experiments" / "positional_bias.yaml",
            output_dir=tmp_path / f"runs{processes}",
            results=results,
            **{"seeds": 1, "matched_seeds": 0, "map_seeds": 1, "sweep_shifts": [0], "steps": 12, "batch_size": 8},
            **{"train_count": 64, "test_count": 32, "widths": [4, 8]},
        )
        runs[processes] = {
            (run["data"], run["head"], run["kind"]): losses(tmp_path / f"runs{processes}", run)
            for run in json.loads(results.read_text())["runs"]
            if run.get("shift_range", 0) == 0 and run.get("encoding") in (None, "product")
        }
    assert runs[1].keys() == runs[2].keys()
    assert {kind for _, _, kind in runs[1]} == {"conv", "coord", "geo"}
    for name, expected in runs[1].items():
        np.testing.assert_allclose(runs[2][name], expected, rtol=2e-3)


def losses(folder: Path, run: dict) -> list[float]:
    """The losses of a run's steps; its folder is the one whose record is the run's."""
    found = [path for path in folder.glob("*/record.json") if json.loads(path.read_text()) == run]
    assert len(found) == 1
    return [json.loads(line)["loss"] for line in (found[0].parent / "losses.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_gan_stopped_and_continued(tmp_path):
    generator, lines = np.random.default_rng(0), []
    (tmp_path / "images").mkdir()
    for index in range(40):
        pixels = generator.integers(60 * (index % 4), 60 * (index % 4) + 50, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", "text": "a grey"}) + "\n")
    (tmp_path / "images" / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    options = {
        **{"train_data": tmp_path / "images", "variants": ["geo"], "seeds": [0], "width": 4, "latent_size": 8},
        **{"epochs": 4, "batch_size": 16, "evaluate_every": 2, "samples": 24, "bins": 4, "pairs": 10},
    }
    launch(2, "gan", output_dir=tmp_path / "whole", results=tmp_path / "gan", **options)
    launch(2, "gan", output_dir=tmp_path / "parts", stop_at_epoch=2, **options)
    launch(2, "gan", output_dir=tmp_path / "parts", results=tmp_path / "gan", **options)
    whole, parts = (
        [json.loads(line) for line in (tmp_path / name / "geo-seed0" / "losses.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    )
    assert [line["epoch"] for line in whole] == [1, 2, 3, 4]
    for expected, found in zip(whole, parts, strict=True):
        assert {k: v for k, v in found.items() if "seconds" not in k} == {
            k: v for k, v in expected.items() if "seconds" not in k
        }
