import json
import random
import shutil
import sys

import numpy as np
import pytest
import torch
from experiments.stress_training.bench import Ended, Failed, differences
from experiments.stress_training.rows import DAMAGES
from PIL import Image
from safetensors.torch import load_file, save_file
from script_loading import load_script


@pytest.fixture(scope="module")
def script():
    return load_script("stress_training")


@pytest.fixture
def finished_run(tmp_path):
    folder = tmp_path / "run"
    for part in ("final", "checkpoint-5/training_state", "checkpoint-10/training_state"):
        (folder / part).mkdir(parents=True)
        save_file({"a": torch.arange(6.0)}, folder / part / "weights.safetensors")
    (folder / "losses.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    return folder


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("final/weights.safetensors", ["final/weights.safetensors a"]),
        ("checkpoint-10/training_state/weights.safetensors", ["checkpoint-10/training_state/weights.safetensors a"]),
        ("checkpoint-5/training_state/weights.safetensors", []),
        ("losses.jsonl", ["losses.jsonl"]),
        (".checkpoint-15-abc", [".checkpoint-15-abc is left over"]),
    ],
)
def test_a_single_bit_is_a_difference(finished_run, tmp_path, file, found):
    other = tmp_path / "other"
    shutil.copytree(finished_run, other)
    assert differences(finished_run, other) == []
    if file.endswith("safetensors"):
        value = load_file(other / file)["a"]
        value.view(torch.int32)[3] ^= 1
        save_file({"a": value}, other / file)
    else:
        (other / file).write_text('{"step": 1, "loss": 0.50000001}\n')
    assert differences(finished_run, other) == found


@pytest.mark.parametrize("name", ["cut in half", "one bit of it flipped", "empty"])
def test_damages(name):
    data = bytes(range(100))
    damaged = DAMAGES[name](data, random.Random(0))
    assert damaged != data
    assert len(damaged) == {"cut in half": 50, "one bit of it flipped": 100, "empty": 0}[name]
    if len(damaged) == 100:
        assert sum((a ^ b).bit_count() for a, b in zip(data, damaged, strict=True)) == 1


@pytest.mark.parametrize(
    ("code", "line", "output", "passes"),
    [
        (2, "no images", "error", True),
        (1, "no images", "error", False),
        (2, "", "", False),
        (2, "x", "Traceback", False),
    ],
)
def test_a_refusal_is_exit_code_2_and_one_line(code, line, output, passes):
    ended = Ended(code, line, output)
    if passes:
        assert ended.refused() == line
    else:
        with pytest.raises(Failed):
            ended.refused()


@pytest.mark.slow
def test_a_killed_run_and_a_second_one(script, tmp_path, monkeypatch, capsys):
    lines = []
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", "text": "a hand"}))
    (tmp_path / "images" / "metadata.jsonl").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    options = "--rows kills two-runs --kills 1 --steps 20 --dataset images --work work --output stress"
    monkeypatch.setattr(sys, "argv", ["stress_training.py", *options.split()])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 0
    results = json.loads((tmp_path / "stress.json").read_text())
    assert [(run["variant"], run["passed"]) for run in results["runs"]] == [("kills", True), ("two-runs", True)]
    page = (tmp_path / "stress.md").read_text()
    assert "WORK/two-runs is in use by another run (process N on HOST)" in page
    assert str(tmp_path) not in page
    assert "| kills | 1 SIGKILLs: " in capsys.readouterr().out
