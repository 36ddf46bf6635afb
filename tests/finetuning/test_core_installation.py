"""Fine-tuning where only the package's own requirements are installed, without the extra `train`.

PyYAML stays: accelerate requires it.
"""

import json
import os
import site
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from script_loading import REPOSITORY
from tiny_models import tiny_stable_diffusion

EXTRA = ("datasets", "matplotlib", "peft", "tensorboard", "tensorboardx", "mpl_toolkits", "pylab")


@pytest.fixture(scope="module")
def core(tmp_path_factory) -> Path:
    """A folder of links to all installed packages but those of the extra, and their metadata."""
    folder = tmp_path_factory.mktemp("site-packages")
    for installed in map(Path, site.getsitepackages()):
        for entry in installed.iterdir():
            if entry.name.lower().split("-")[0].removesuffix(".py") not in EXTRA and entry.suffix != ".pth":
                (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tiny_stable_diffusion().save_pretrained(folder / "model")
    Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8)).save(folder / "0.png")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "text": "a hand"}), encoding="utf-8")
    return folder


def train(core: Path, data: Path, output: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-S", "-m", "geopos_diffusers.cli.main", "train", "--model", str(data / "model")]
    command += ["--dataset", str(data), "--output_dir", str(output), "--max_train_steps", "2", *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(core)])}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=data)


@pytest.mark.slow
def test_a_run_without_trackers_needs_no_extra(core, data, tmp_path):
    done = train(core, data, tmp_path / "run", "--report_to", "none")
    assert done.returncode == 0, done.stderr
    assert "losses.png is left out: it needs matplotlib (pip install 'geopos-diffusers[train]')" in done.stdout
    assert (tmp_path / "run" / "final" / "geoconv_weights.safetensors").is_file()
    assert len((tmp_path / "run" / "losses.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "missing"),
    [
        (["--report_to", "tensorboard"], "report_to tensorboard needs"),
        (["--report_to", "none", "--train", "lora"], "train=lora needs the package peft"),
        (["--report_to", "none", "--dataset", "images.parquet"], "data set of the Hub needs the package datasets"),
    ],
)
def test_what_is_missing_is_named_before_the_model_is_loaded(core, data, tmp_path, options, missing):
    (data / "images.parquet").touch()
    done = train(core, data, tmp_path / "run", *options, "--model", "no/such/model")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert missing in line
    assert "pip install 'geopos-diffusers[train]'" in line
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "run"])
