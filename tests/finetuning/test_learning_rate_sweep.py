import json

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image
from tiny_models import tiny_stable_diffusion

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.finetuning import learning_rate_sweep


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict:
    """A tiny model, and eight images that are much alike, so that there is something to learn."""
    root = tmp_path_factory.mktemp("sweep")
    tiny_stable_diffusion().save_pretrained(root / "model")
    (root / "images").mkdir()
    rng, lines = np.random.default_rng(0), []
    ramp = np.linspace(0, 200, 32)[None, :, None] + np.zeros((32, 32, 3))
    for index in range(8):
        Image.fromarray((ramp + rng.uniform(0, 40, (32, 32, 3))).astype(np.uint8)).save(root / f"images/{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", "text": "a ramp"}))
    (root / "images/metadata.jsonl").write_text("\n".join(lines))
    return {"root": root, "model": root / "model", "images": root / "images"}


def words(folders, output, *rates: str) -> list[str]:
    return [
        *("--validation-dataset", str(folders["images"]), "--size", "32", "--rates", *rates),
        *("--output", str(output), "--model", str(folders["model"]), "--dataset", str(folders["images"])),
        *("--train", "geoconv", "--max_train_steps", "12", "--train_batch_size", "4"),
    ]


def test_the_grid_grows_until_the_best_rate_is_bracketed(folders, tmp_path, capsys):
    AcceleratorState._reset_state(reset_partial_state=True)
    learning_rate_sweep.main(words(folders, tmp_path, "1e-5", "1e-3"))
    result = json.loads((tmp_path / "sweep.json").read_text())
    ratios = {float(rate): ratio for rate, ratio in result["ratio"].items()}
    assert result["bracketed"]
    assert min(ratios) < result["best"] < max(ratios)
    assert ratios[result["best"]] == min(ratios.values()) < 1
    assert len(ratios) > 2
    assert abs(ratios[1e-5] - 1) < 1e-2
    assert result["options"][-6:] == ["--max_train_steps", "12", "--train_batch_size", "4", "--size", "32"]
    with Image.open(tmp_path / "sweep.png") as picture:
        assert picture.size == (840, 480)
    assert f"{result['best']:14g} {ratios[result['best']]:10.4f}  best" in capsys.readouterr().out

    # Finished runs are read; other options in the same folder are refused.
    files = {file: file.stat().st_mtime_ns for file in tmp_path.glob("rate-*/final/*.safetensors")}
    learning_rate_sweep.main(words(folders, tmp_path, "1e-5", "1e-3"))
    assert {file: file.stat().st_mtime_ns for file in files} == files
    with pytest.raises(ConfigError, match="holds a run with other options"):
        learning_rate_sweep.main([*words(folders, tmp_path, "1e-5", "1e-3"), "--seed", "1"])


def test_a_rate_at_which_the_training_diverges_is_the_worst(folders, tmp_path, capsys):
    AcceleratorState._reset_state(reset_partial_state=True)
    learning_rate_sweep.main(words(folders, tmp_path, "1e-5", "1e-3", "1e30"))
    result = json.loads((tmp_path / "sweep.json").read_text())
    assert result["ratio"]["1e+30"] is None
    assert (result["best"], result["bracketed"]) == (1e-3, True)
    assert f"{1e30:14g} {'diverged':>10}" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="diverged at every learning rate"):
        learning_rate_sweep.main(words(folders, tmp_path / "all", "1e30", "1e35"))


def test_losses_are_those_of_the_saved_weights_on_the_same_noise(folders, tmp_path):
    held_out = {"images": learning_rate_sweep.HeldOut(str(folders["images"]), 32, 32)}
    options = words(folders, tmp_path, "1")[8:]
    AcceleratorState._reset_state(reset_partial_state=True)
    still = learning_rate_sweep.run_arm([*options, "--learning_rate", "1e-12"], held_out, tmp_path / "still")
    base = learning_rate_sweep.base_losses(str(folders["model"]), held_out)["images"]
    assert still.losses["images"] == pytest.approx(base, rel=1e-4)
    # A set that is asked for later is measured on the weights that were kept.
    more = held_out | {"wide": learning_rate_sweep.HeldOut(str(folders["images"]), 16, 32)}
    again = learning_rate_sweep.run_arm([*options, "--learning_rate", "1e-12"], more, tmp_path / "still")
    assert again.losses["images"] == still.losses["images"]
    assert len(again.losses["wide"]) == 8


@pytest.mark.parametrize("rates", ["0", "nan", "-1"])
def test_bad_rates_are_refused_before_anything_runs(folders, tmp_path, rates):
    with pytest.raises(ConfigError, match="rates must be numbers > 0"):
        learning_rate_sweep.main(words(folders, tmp_path / "none", rates))
    assert not (tmp_path / "none").exists()
