"""Prior preservation: as many images of a class in every batch, drawn by the untrained model or given."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.finetuning.class_images import join_batches, prior_losses

DRAWN = {
    "with_prior_preservation": True,
    "class_prompt": "a hand",
    "num_class_images": 3,
    "validation_inference_steps": 1,
    "train": "geoconv+lora",
}


@pytest.fixture
def class_images(tmp_path):
    """Five images of another size than the model's."""
    folder = tmp_path / "class"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for index in range(5):
        Image.fromarray(rng.integers(0, 255, (36, 36, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    rows = ({"file_name": f"{index}.png", "text": "a hand"} for index in range(5))
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_losses_are_logged_apart_and_weighted(finetune, class_images):
    options = {"with_prior_preservation": True, "class_dataset": class_images, "cache_latents": True}
    _, lines = finetune("given", prior_loss_weight=0.25, **options)
    for line in lines:
        assert line["loss"] == pytest.approx(line["instance_loss"] + 0.25 * line["prior_loss"], rel=1e-6)
        assert line["instance_loss"] != line["prior_loss"]


def test_a_mean_is_taken_of_each_set():
    losses = prior_losses(torch.tensor([1.0, 3.0, 5.0, 9.0]), 2, 0.5)
    found = {name: value.item() for name, value in losses.items()}
    assert found == {"instance_loss": 2, "prior_loss": 7, "loss": 5.5}
    first = {"pixels": torch.zeros(2, 3), "caption": ["a", "b"], "class": {}}
    joined = join_batches(first, {"pixels": torch.ones(2, 3), "caption": ["c", "d"]})
    assert joined["pixels"].tolist() == [[0, 0, 0]] * 2 + [[1, 1, 1]] * 2
    assert joined["caption"] == ["a", "b", "c", "d"]


def test_the_untrained_model_draws_them_and_a_stopped_run_goes_on_exactly(finetune, tmp_path):
    """Also where some images are lost: the images are those of the untrained model again."""
    options = {**DRAWN, "learning_rate": 0.1}
    whole, expected = finetune("whole", max_train_steps=3, **options)
    names = [f"{index:05d}.png" for index in range(3)]
    assert sorted(path.name for path in (whole / "class_images").glob("*.png")) == names
    finetune("cut", max_train_steps=2, **options)
    (tmp_path / "cut" / "class_images" / names[1]).unlink()
    cut, lines = finetune("cut", max_train_steps=3, **options)
    assert lines == expected
    for name in names:
        assert (cut / "class_images" / name).read_bytes() == (whole / "class_images" / name).read_bytes()


def test_a_continued_run_may_draw_otherwise_and_one_that_begins_anew_draws_new_images(finetune):
    folder, _ = finetune("run", max_train_steps=1, gradient_accumulation_steps=1, **DRAWN)
    file, settings = folder / "class_images" / "00001.png", folder / "class_images" / "settings.json"
    first, made = np.asarray(Image.open(file), int), settings.read_text()
    file.unlink()
    options = DRAWN | {"validation_inference_steps": 3, "train_batch_size": 1, "gradient_accumulation_steps": 2}
    _, lines = finetune("run", max_train_steps=2, **options)
    assert len(lines) == 2
    assert settings.read_text() == made
    # Of the same steps; the size of a batch may change the last digits.
    assert np.abs(np.asarray(Image.open(file), int) - first).max() <= 1
    finetune("run", max_train_steps=1, overwrite=True, **options | {"class_prompt": "a fist"})
    assert (folder / "final").is_dir()
    assert json.loads(settings.read_text())["prompt"] == "a fist"
    assert np.abs(np.asarray(Image.open(file), int) - first).max() > 1


def test_other_images_are_refused(finetune, tmp_path, class_images):
    folder, _ = finetune("first", max_train_steps=1, **DRAWN)
    shutil.rmtree(folder / "checkpoint-1")
    with pytest.raises(ConfigError, match='were drawn with prompt="a hand"; this run has prompt="a fist"'):
        finetune("first", max_train_steps=1, **DRAWN | {"class_prompt": "a fist"})
    options = {"with_prior_preservation": True, "class_dataset": class_images}
    finetune("given", max_train_steps=1, **options)
    fewer = tmp_path / "fewer"
    shutil.copytree(class_images, fewer)
    rows = (class_images / "metadata.jsonl").read_text().splitlines()
    (fewer / "metadata.jsonl").write_text("\n".join(rows[:4]))
    with pytest.raises(ConfigError, match="was made with class_data="):
        finetune("given", max_train_steps=2, **options | {"class_dataset": fewer})
