"""Ctrl-C and SIGTERM in `geopos train`, sent to real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import tiny_stable_diffusion

from geopos_diffusers.training.checkpoints import list_checkpoints
from geopos_diffusers.training.loss_log import read_losses

STEPS = 2000  # more than fit in the time before the signal


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    tiny_stable_diffusion().save_pretrained(folder / "model")
    rng, lines = np.random.default_rng(0), []
    for index in range(5):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", "text": "a hand"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    values = {
        "model": folder / "model",
        "dataset": folder,
        "train_batch_size": 1,
        "num_workers": 1,
        "report_to": "none",
    }
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def start(folder: Path, *options: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen:
    command = [sys.executable, "-m", "geopos_diffusers.cli.main", "train", *launcher, "--output_dir", str(folder)]
    # A session of its own, as a terminal's foreground job: Ctrl-C reaches all of its processes.
    return subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_steps(process: subprocess.Popen, folder: Path, steps: int) -> None:
    for _ in range(1500):
        if len(read_losses(folder / "losses.jsonl")) >= steps:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("no steps were made")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "launcher"),
    [
        (signal.SIGINT, 130, ()),
        (signal.SIGTERM, 143, ()),
        (signal.SIGINT, 130, ("--cpu", "--num_processes", "2")),
    ],
)
def test_a_stopped_run_says_where_it_is_and_continues(options, tmp_path, number, code, launcher):
    folder = tmp_path / "run"
    process = start(folder, *options, "--max_train_steps", str(STEPS), launcher=launcher)
    wait_for_steps(process, folder, 3)
    os.killpg(process.pid, number) if launcher else process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    (checkpoint,) = list_checkpoints(folder)
    steps = int(checkpoint.name.removeprefix("checkpoint-"))
    assert f"fine-tuning: stopped at step {steps} of {STEPS}; saved {checkpoint}" in output, errors
    assert "run the same command again, without --overwrite, to continue" in output
    assert process.returncode == code, errors
    if not launcher:  # torch's launcher prints a traceback of its own
        assert "Traceback" not in errors
    lines = read_losses(folder / "losses.jsonl")
    assert [line["step"] for line in lines] == [*range(1, steps + 1)]
    assert not (folder / "final").exists()

    end = ["--max_train_steps", str(steps + 2)]
    process = start(folder, *options, *end, "--resume_from_checkpoint", "latest", launcher=launcher)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert f"fine-tuning: resuming from {checkpoint.name}, step {steps} of {steps + 2}" in output
    assert read_losses(folder / "losses.jsonl")[:steps] == lines
    assert len(read_losses(folder / "losses.jsonl")) == steps + 2
