"""A UNet with another padding: what it knows of places, and that it is measured and trained with that padding."""

from importlib import import_module

import pytest
import torch
from experiments.rendered_hands import render
from safetensors.torch import load_file
from tiny_models import tiny_stable_diffusion

from geopos_diffusers.finetuning.kinds import DEFAULT, main_of
from geopos_diffusers.finetuning.learning_rate_sweep import HeldOut, run_arm

padding = import_module("experiments.study.padding")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_stable_diffusion().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return str(render(tmp_path_factory.mktemp("hands") / "images", 6, 32, 0, ["--quiet"]))


@torch.no_grad()
def change_where_the_input_moves(unet) -> float:
    """How far the prediction of an input that is moved by eight pixels is from the moved prediction."""
    torch.manual_seed(0)
    sample, text = torch.randn(1, 4, 16, 16), torch.randn(1, 7, 16)
    moved, still = (unet.eval()(one, 500, encoder_hidden_states=text).sample for one in (sample.roll(8, 3), sample))
    return (moved - still.roll(8, 3)).abs().max().item()


def test_a_unet_with_circular_padding_does_not_know_where_a_pixel_is(model):
    """Unlike the same UNet with zeros at the borders."""
    plain, circular = (padding.load_padded(model, mode).unet for mode in (None, "circular"))
    assert change_where_the_input_moves(circular) < 1e-4 < change_where_the_input_moves(plain)


@pytest.mark.parametrize(("train", "knows"), [("bias", False), ("lora", False), ("full", False), ("geoconv", True)])
def test_of_what_is_trained_only_geometry_knows(model, images, tmp_path, train, knows):
    """Each is trained and loaded with the padding, the whole UNet too, whose files do not hold its padding."""
    options = ["--model", model, "--dataset", images, "--train", train, "--max-train-steps", "2", "--size", "32"]
    options += ["--learning-rate", "0.01", "--train-batch-size", "2", "--random-flip", "false"]
    run_arm(options, {}, tmp_path / "run", padding.padded_training("circular"))
    unet = padding.load_padded(model, "circular", tmp_path / "run" / "final").unet
    before = padding.load_padded(model, "circular").unet
    torch.manual_seed(1)
    inputs = torch.randn(1, 4, 16, 16), 500, torch.randn(1, 7, 16)
    with torch.no_grad():
        assert (unet.eval()(*inputs).sample - before.eval()(*inputs).sample).abs().max() > 1e-4
    change = change_where_the_input_moves(unet)
    assert change > 1e-3 if knows else change < 1e-4


def test_losses_are_of_the_padding(model, images):
    plain = HeldOut(images, 32, 32).losses(model, None)
    found = {
        mode: padding.PaddedHeldOut(images, 32, 32, padding=mode).losses(model, None) for mode in (None, "circular")
    }
    assert found[None] == plain
    assert all(abs(one - other) > 1e-5 for one, other in zip(found["circular"], plain, strict=True))


def test_training_is_with_the_padding(model, images, tmp_path):
    """The same run by the model's own padding ends elsewhere; without another padding it is `geopos train`'s."""
    assert main_of(padding.padded_training(None)) is main_of(DEFAULT)
    options = ["--model", model, "--dataset", images, "--train", "geoconv", "--shift-range", "0", "--size", "32"]
    options += ["--max-train-steps", "2", "--train-batch-size", "2", "--learning-rate", "0.1", "--random-flip", "false"]
    found, losses = {}, {}
    for mode in (None, "circular"):
        held_out = {"images": padding.PaddedHeldOut(images, 32, 32, padding=mode)}
        run = run_arm(options, held_out, tmp_path / f"{mode}", padding.padded_training(mode))
        (file,) = (tmp_path / f"{mode}" / "final").rglob("*.safetensors")
        found[mode], losses[mode] = load_file(file), run.loss("images")
    assert {*found[None]} == {*found["circular"]}
    assert any((one - found["circular"][name]).abs().max() > 1e-3 for name, one in found[None].items())
    assert losses[None] != losses["circular"]
