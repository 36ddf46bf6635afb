"""A tiny pipeline, a few images with captions, and a function that fine-tunes the one on the others."""

import json
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image
from tiny_models import tiny_stable_diffusion

from geopos_diffusers.finetuning.text_to_image import main

IMAGES = 10


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_stable_diffusion().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Ten images of 48x40 pixels with captions."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    lines = []
    for index in range(IMAGES):
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", "text": f"a hand with {index} fingers"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def finetune_into(model, images):
    """Run the script in this process: finetune_into(folder, option=value, ...) -> the lines of losses.jsonl."""

    def run(folder: Path, **options) -> list[dict]:
        AcceleratorState._reset_state(reset_partial_state=True)
        options = {
            "model": model,
            "dataset": images,
            "output_dir": folder,
            "report_to": "none",
            "train_batch_size": 2,
            "max_train_steps": 2,
            **options,
        }
        main([word for key, value in options.items() for word in (f"--{key}", *map(str, np.atleast_1d(value)))])
        log = Path(options["output_dir"]) / "losses.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    return run


@pytest.fixture
def finetune(finetune_into, tmp_path):
    """The same into a folder of the test's: finetune("name", option=value, ...) -> (folder of the run, its lines)."""
    return lambda name, **options: (tmp_path / name, finetune_into(tmp_path / name, **options))
