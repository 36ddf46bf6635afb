import json
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from geopos_diffusers.errors import ConfigError, DataError

REPOSITORY = Path(__file__).parents[3]
TINY = {
    "resolution": 32,
    "validation_count": 4,
    "report_to": "none",
    "vae_channels": [8, 8, 8],
    "vae_latent_channels": 4,
    "vae_steps": 4,
    "vae_full_steps": 1,
    "vae_batch_size": 2,
    "vae_crop": 16,
    "unet_channels": [32, 32, 32],
    "text_width": 32,
    "text_layers": 1,
    "vocabulary_size": 600,
    "text_steps": 4,
    "text_batch_size": 4,
    "denoiser_steps": 4,
    "denoiser_batch_size": 4,
    "warmup_steps": 2,
    "inference_steps": 1,
}


@pytest.fixture(scope="module")
def script():
    return import_module("experiments.pretraining.run")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Bars on a coloured ground, as many as the caption says."""
    folder = tmp_path_factory.mktemp("images")
    lines = []
    for index in range(16):
        count, color = index % 6, ("red", "green", "blue")[index % 3]
        picture = Image.new("RGB", (32, 32), color)
        for bar in range(count):
            ImageDraw.Draw(picture).rectangle([3 + 5 * bar, 6, 5 + 5 * bar, 26], fill="white")
        picture.save(folder / f"{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", "text": f"{count} bars on a {color} background"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def run(script, monkeypatch, images, output, **changes):
    argv = ["pretrain_hands.py", "--dataset", str(images), "--output", str(output)]
    for name, value in {**TINY, **changes}.items():
        argv += [f"--{name}", *(str(item) for item in (value if isinstance(value, list) else [value]))]
    monkeypatch.setattr(sys, "argv", argv)
    script.main()


def losses(output, stage):
    lines = (output / stage / "losses.jsonl").read_text(encoding="utf-8").splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def whole_run(script, images, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        run(script, monkeypatch, images, output)
    return output


def test_result_is_a_pipeline_that_draws(whole_run):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(whole_run / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    first, second = (
        pipe(
            "3 bars",
            height=32,
            width=32,
            num_inference_steps=3,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        ).images
        for _ in range(2)
    )
    assert first.shape == (1, 32, 32, 3)
    assert np.isfinite(first).all()
    assert (first == second).all()


def test_result_is_in_half_precision_with_a_model_card(whole_run):
    folder = whole_run / "pipeline"
    files = sorted(folder.rglob("*.safetensors"))
    assert [file.parent.name for file in files] == ["text_encoder", "unet", "vae"]
    assert {value.dtype for file in files for value in load_file(file).values() if value.is_floating_point()} == {
        torch.float16
    }
    card = (folder / "README.md").read_text(encoding="utf-8")
    summary = json.loads((whole_run / "summary.json").read_text(encoding="utf-8"))
    assert f"{summary['vae']['psnr']:.1f} dB" in card
    assert "apache-2.0" in card


def test_latents_of_the_training_images_are_centred_and_scaled(whole_run, script, images):
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(whole_run / "pipeline" / "vae", torch_dtype=torch.float32)
    pictures = [Image.open(images / f"{index}.png") for index in range(16)]
    pixels = torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures])
    with torch.no_grad():
        latents = vae.encode(pixels / 127.5 - 1).latent_dist.mean * vae.config.scaling_factor
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=0.02, rtol=0)
    assert latents.std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("stage", "before"), [("vae", None), ("text", "latents"), ("denoiser", "text")])
def test_resumed_run_has_the_losses_of_an_uninterrupted_one(
    script, monkeypatch, images, whole_run, tmp_path, stage, before
):
    if before is not None:
        # The stop would also end the stages before this one, so they are run to their end first.
        run(script, monkeypatch, images, tmp_path, stage=before)
    run(script, monkeypatch, images, tmp_path, stop_at_step=2)
    assert len(losses(tmp_path, stage)) == 2
    run(script, monkeypatch, images, tmp_path)
    assert losses(tmp_path, stage) == losses(whole_run, stage)


def test_stopped_encoding_goes_on_from_its_parts(script, monkeypatch, images, whole_run, tmp_path):
    monkeypatch.setattr(script, "ENCODED", 8)
    run(script, monkeypatch, images, tmp_path, stage="vae")
    written, write = [], script.write_means

    def stop_at_second(means, target):
        if written:
            raise KeyboardInterrupt
        written.append(target)
        write(means, target)

    monkeypatch.setattr(script, "write_means", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        run(script, monkeypatch, images, tmp_path, stage="latents")
    monkeypatch.setattr(script, "write_means", lambda means, target: (written.append(target), write(means, target)))
    run(script, monkeypatch, images, tmp_path, stage="latents")
    assert [path.name for path in written] == ["000000000.safetensors", "000000008.safetensors", "latents.safetensors"]
    assert not written[0].exists()
    whole, parts = (load_file(folder / "latents.safetensors")["means"] for folder in (whole_run, tmp_path))
    torch.testing.assert_close(parts, whole)  # rounded otherwise, in other batches


def test_other_settings_do_not_continue_a_run(script, monkeypatch, images, whole_run):
    with pytest.raises(ConfigError, match="vae_gradient_weight"):
        run(script, monkeypatch, images, whole_run, vae_gradient_weight=2.0)


def test_overwrite_begins_anew(script, monkeypatch, images, whole_run, tmp_path):
    run(script, monkeypatch, images, tmp_path, stage="latents", seed=1)
    old = (tmp_path / "latents.safetensors").read_bytes()
    run(script, monkeypatch, images, tmp_path, stage="latents", overwrite=True)
    assert losses(tmp_path, "vae") == losses(whole_run, "vae")
    assert (tmp_path / "latents.safetensors").read_bytes() == (whole_run / "latents.safetensors").read_bytes() != old


def test_finished_run_is_not_repeated(script, monkeypatch, images, whole_run):
    before = (whole_run / "summary.json").read_bytes()
    stamp = (whole_run / "denoiser" / "losses.jsonl").read_bytes()
    run(script, monkeypatch, images, whole_run)
    assert (whole_run / "summary.json").read_bytes() == before
    assert (whole_run / "denoiser" / "losses.jsonl").read_bytes() == stamp


def test_second_run_begins_with_the_weights_of_the_first(script, monkeypatch, images, whole_run, tmp_path):
    """And is packaged at the step at which it stops, before its last one."""
    new = {"wrong_captions": True, "vae_mixed_precision": True, "denoiser_schedule": "warmup_stable_decay"}
    begun = {"vae_init": whole_run / "pipeline" / "vae", "denoiser_init": whole_run / "pipeline" / "unet"}
    run(
        script, monkeypatch, images, tmp_path, **new, **begun, denoiser_steps=8, stop_at_step=4, package_unfinished=True
    )
    assert losses(tmp_path, "vae")[0]["l1"] < losses(whole_run, "vae")[0]["l1"]
    assert losses(tmp_path, "denoiser")[0]["loss"] != losses(whole_run, "denoiser")[0]["loss"]
    assert [line["learning_rate"] for line in losses(tmp_path, "denoiser")] == [5e-4, 1e-3, 1e-3, 1e-3]
    card = " ".join((tmp_path / "pipeline" / "README.md").read_text(encoding="utf-8").split())
    assert "4 of 8 steps" in card


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"stage": "unet"}, ConfigError),
        ({"vae_crop": 24}, ConfigError),
        ({"caption_dropout": 1.0}, ConfigError),
        ({"validation_count": 16}, DataError),
        ({"train_data": "/nowhere/at/all"}, DataError),
    ],
)
def test_bad_options_are_refused(script, monkeypatch, images, tmp_path, changes, error):
    with pytest.raises(error):
        run(script, monkeypatch, images, tmp_path / "run", **changes)
