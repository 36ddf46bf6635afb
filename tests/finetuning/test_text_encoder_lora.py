"""LoRA in the text encoders, with that of the UNet or without."""

import json
import subprocess
import sys

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from script_loading import REPOSITORY
from tiny_models import tiny_stable_diffusion, tiny_stable_diffusion_3, tiny_stable_diffusion_xl

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.finetuning.text_conditions import CaptionEncoder, predict
from geopos_diffusers.finetuning.text_encoder_lora import EncodedDenoiser, add_text_encoder_lora
from geopos_diffusers.finetuning.text_to_image_arguments import TextToImageArguments
from geopos_diffusers.finetuning.trained_parts import add_trained_parts

CPU = torch.device("cpu")
BUILD = {"sd": tiny_stable_diffusion, "xl": tiny_stable_diffusion_xl}
OPTIONS = {"train_text_encoder": True, "text_encoder_learning_rate": 1e-2, "text_encoder_lora_rank": 2}


def arguments(**options) -> TextToImageArguments:
    return TextToImageArguments(dataset="d", output_dir="o", max_train_steps=1, **OPTIONS | options)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    for name, build in BUILD.items():
        build().save_pretrained(folder / name)
    return folder


def encodings(pipe) -> list[torch.Tensor]:
    return list(CaptionEncoder(pipe, CPU).encode(["a hand", "a fist"]))


@pytest.mark.parametrize(("name", "train"), [("sd", "geoconv"), ("sd", "lora"), ("xl", "lora")])
def test_one_file_loads_into_the_base_and_encodes_as_the_trained_one(finetune, models, name, train):
    folder, lines = finetune("run", model=models / name, train=train, caption_dropout=0.5, **OPTIONS)
    assert lines[0]["learning_rate_text_encoder"] == 1e-2
    trained = BUILD[name]()
    parameters = add_trained_parts(trained, "unet", arguments(train=train)) | add_text_encoder_lora(
        trained, arguments()
    )
    weights = load_file(folder / "checkpoint-2" / "training_state" / "weights.safetensors")
    assert list(weights) == sorted(parameters)
    for key, parameter in parameters.items():
        parameter.data.copy_(weights[key])
    pipe = DiffusionPipeline.from_pretrained(models / name)
    base = encodings(pipe)
    pipe.load_lora_weights(folder / "final")
    for value, before, expected in zip(encodings(pipe), base, encodings(trained), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
        assert (value - before).abs().max() > 1e-4


def test_a_resumed_run_is_the_undisturbed_one(finetune, models):
    options = {"model": models / "sd", "train": "lora", "use_ema": True, **OPTIONS}
    whole, expected = finetune("whole", max_train_steps=3, **options)
    finetune("cut", max_train_steps=2, **options)
    cut, lines = finetune("cut", max_train_steps=3, **options)
    assert lines == expected
    one, other = (load_file(folder / "final" / "pytorch_lora_weights.safetensors") for folder in (whole, cut))
    assert any(name.startswith("text_encoder.") for name in one)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", BUILD)
def test_every_factor_gets_a_gradient_and_nothing_changes_at_first(name):
    """The same prediction as from captions encoded apart, where factors begin at zero; also of the empty caption."""
    pipe = BUILD[name]()
    encoder = CaptionEncoder(pipe, CPU)
    generator = torch.Generator().manual_seed(0)
    noisy, timesteps = torch.randn(2, 4, 16, 16, generator=generator), torch.tensor([10, 900])
    captions, sizes, dropped = ["a hand", "a fist"], torch.full((2, 6), 32.0), torch.tensor([False, True])
    with torch.no_grad():
        parts = zip(encoder.encode(captions), encoder.empty, strict=True)
        mixed = tuple(torch.stack([part[0], empty[0]]) for part, empty in parts)
        expected = predict(pipe.unet, noisy, timesteps, encoder(captions, sizes, parts=mixed))
    parameters = add_text_encoder_lora(pipe, arguments())
    prediction = EncodedDenoiser(pipe.unet, encoder)(noisy, timesteps, captions, sizes, dropped)
    torch.testing.assert_close(prediction, expected, rtol=1e-5, atol=1e-6)
    prediction.square().mean().backward()
    assert all(parameter.grad is not None for parameter in parameters.values())
    assert all(parameter.grad.any() for key, parameter in parameters.items() if "lora_B" in key)


def test_other_pipelines_are_refused():
    with pytest.raises(ConfigError, match="for Stable Diffusion and SDXL; the model is a StableDiffusion3Pipeline"):
        add_text_encoder_lora(tiny_stable_diffusion_3(), arguments())


@pytest.mark.slow
def test_two_processes_exchange_the_gradients_of_all(models, images, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, REPOSITORY / "scripts" / "finetune_text_to_image.py", "--model", models / "xl"]
    command += ["--dataset", images, "--output_dir", tmp_path / "run", "--max_train_steps", 2, "--train", "lora"]
    command += ["--train_text_encoder", "--report_to", "none", "--train_batch_size", 2]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["processes"] == 2
