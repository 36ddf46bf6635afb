"""What geometry weights do in a denoiser: known fields, exact removal, the probe, and a run with tiny adapters."""

import json
import sys
from importlib import import_module

import numpy as np
import pytest
import torch
from commands import save_random_adapter
from PIL import Image
from tiny_models import tiny_stable_diffusion
from trained_models import denoise, relative_error, trained_stable_diffusion

from geopos_diffusers import GeoConv2d, GeoConvConfig, apply_geoconv, disable_geoconv
from geopos_diffusers.errors import ConfigError, DataError
from geopos_diffusers.finetuning.held_out_loss import image_losses, load_images
from geopos_diffusers.patching.patched_model import geometry_layers

ablations = import_module("experiments.study.ablations")
encoded_images = import_module("experiments.study.encoded_images")
learnt_fields = import_module("experiments.study.learnt_fields")
mechanism = import_module("experiments.study.mechanism")
position_probe = import_module("experiments.study.position_probe")
IMAGES = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of 32 px with captions."""
    folder = tmp_path_factory.mktemp("test-images")
    rng = np.random.default_rng(0)
    rows = []
    for index in range(IMAGES):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        rows.append(json.dumps({"file_name": f"{index}.png", "text": f"a hand with {index} fingers"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folder


@pytest.fixture
def patched(folder):
    """Encoded images of the tiny pipeline with an adapter."""
    return encoded_images.EncodedImages(trained_stable_diffusion(size=0.3), folder, 32, IMAGES)


def field_of(layer, size=(6, 8)):
    """What is learnt of a layer that is given an image [1, C, *size], beside an output of mean square 4."""
    given = torch.zeros(1, layer.in_channels, *size)
    y, x = learnt_fields.layer_coordinates(layer, given.shape, layer(given).shape)
    return learnt_fields.LearntField(layer.geo_weight.detach().double(), y, x, 4.0)


class TestFields:
    @pytest.mark.parametrize("stride", [1, 2])
    def test_they_are_what_the_layer_adds(self, stride):
        layer = GeoConv2d(3, 5, 3, stride=stride, padding=1, basis="multilinear").eval()  # no shift
        torch.nn.init.normal_(layer.geo_weight)
        given = torch.randn(1, 3, 6, 8)
        with torch.no_grad():
            added = layer(given) - torch.nn.functional.conv2d(given, layer.weight, layer.bias, stride, 1)
        assert relative_error(field_of(layer).values(), added[0]) < 1e-5

    def test_energies_of_known_coefficients(self):
        """The mean square of L coordinates from -1 to 1 is (L + 1) / (3 (L - 1))."""
        layer = GeoConv2d(3, 2, 3, padding=1, basis="multilinear")
        layer.geo_weight.data = torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.0, 3.0, 0.0, -1.0]])
        y, x = 7 / 15, 9 / 21  # of six rows and eight columns
        expected = [1 / 2, 9 * x / 2, 4 * y / 2, x * y / 2]
        field = field_of(layer)
        assert field.energies().tolist() == pytest.approx(expected)
        assert field.relative() == pytest.approx((sum(expected) / 4) ** 0.5)
        shares = learnt_fields.energy_scores({"conv": field})
        assert shares["conv x"] == shares["all layers x"] == pytest.approx(expected[1] / sum(expected))

    def test_parts_sum_up_where_the_grid_is_not_symmetric(self):
        layer = GeoConv2d(3, 4, 3, stride=2, padding=1, basis="multilinear")
        torch.nn.init.normal_(layer.geo_weight)
        field = field_of(layer)
        assert abs(field.x.mean()) > 0.1
        assert field.energies().sum().item() == pytest.approx(field.values().square().mean().item())
        mean = field.values().mean((1, 2))
        assert field.energies()[0].item() == pytest.approx(mean.square().mean().item())

    def test_they_are_measured_beside_the_convolutions_own_output(self, patched):
        fields = learnt_fields.measure_fields(patched)
        assert next(iter(fields)) == "conv_in"
        assert list(fields)[-1] == "conv_out"
        assert fields.keys() == geometry_layers(patched.model).keys()
        seen = []
        handle = patched.model.conv_in.register_forward_hook(lambda layer, given, output: seen.append(output))
        with disable_geoconv(patched.model):
            patched.run_at_middle_noise()  # conv_in is given the same with geometry and without
        handle.remove()
        assert fields["conv_in"].output == pytest.approx(torch.cat(seen).square().mean().item(), rel=1e-4)

    def test_other_bases_are_refused(self):
        unet = tiny_stable_diffusion().unet
        apply_geoconv(unet, GeoConvConfig(basis="taps"))
        with pytest.raises(ConfigError, match="multilinear"):
            learnt_fields.check_basis(unet)


class TestRemoval:
    def test_losses_are_those_of_held_out_images(self, patched, folder):
        pixels, captions = load_images(folder, 32, 32)
        expected = image_losses(trained_stable_diffusion(size=0.3), pixels, captions, 0)
        np.testing.assert_allclose(patched.losses(), expected, rtol=1e-5)

    def test_constants_and_gradients_sum_up_to_the_whole(self, patched):
        layers = geometry_layers(patched.model)

        def values(terms):
            with ablations.kept_weights(patched.model, dict.fromkeys(layers, terms)):
                fields = learnt_fields.measure_fields(patched)
            return torch.cat([field.values().flatten() for field in fields.values()])

        constant, others, whole = (
            values(ablations.KEPT_TERMS[name])
            for name in ("constant terms alone", "non-constant terms alone", "whole adapter")
        )
        assert constant.abs().max() > 0.1 < others.abs().max()
        torch.testing.assert_close(constant + others, whole)

    def test_without_any_layer_it_is_the_base(self, patched):
        trained = denoise(patched.model)
        base = tiny_stable_diffusion().unet
        with ablations.kept_weights(patched.model, {}):
            assert relative_error(denoise(patched.model), denoise(base)) < 1e-6
        assert relative_error(trained, denoise(base)) > 1e-2
        assert torch.equal(denoise(patched.model), trained)

    def test_one_layer(self, patched):
        with disable_geoconv(patched.model):
            base = float(patched.losses().mean())
        (name, *others) = geometry_layers(patched.model)
        measured = ablations.Ablations(patched, base, [name, *others])
        whole = measured.removal()["whole adapter"]
        assert whole == pytest.approx(float(patched.losses().mean()) / base)
        scores = measured.one_layer(whole)
        patched.model.get_submodule(name).geo_scale = 0.0
        assert scores[f"{name} dropped"] == pytest.approx(measured.ratio() - whole, abs=1e-6)
        patched.model.get_submodule(name).geo_scale = 1.0
        for other in others:
            patched.model.get_submodule(other).geo_scale = 0.0
        assert scores[f"{name} alone"] == pytest.approx(measured.ratio() - 1, abs=1e-6)
        assert len({round(value, 9) for value in scores.values()}) > len(others)

    def test_shifted_coordinates(self, patched):
        """A shift of x by s is the field a + b s + (b) x + (c + d s) y + d x y."""
        scores = ablations.Ablations(patched, 1.0, list(geometry_layers(patched.model))).shifted()
        assert scores.keys() == {f"{axis} {size}" for axis in "xy" for size in ("+0.25", "-0.25", "+1", "-1")}
        with torch.no_grad():
            for layer in geometry_layers(patched.model).values():
                weight = layer.geo_weight
                weight[:, 0] += 0.25 * weight[:, 1]
                weight[:, 2] += 0.25 * weight[:, 3]
        assert scores["x +0.25"] == pytest.approx(float(patched.losses().mean()), rel=1e-5)
        assert scores["x +0.25"] != pytest.approx(scores["x -0.25"], rel=1e-4)


class TestProbe:
    def test_it_finds_coordinates_in_features_that_hold_them(self):
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(16, 6, 8, 12, generator=generator)
        features[:, 0] = 0.1 * features[:, 0] + torch.linspace(-3, 3, 12)
        features[:, 1] = 0.1 * features[:, 1] + torch.linspace(5, 7, 8)[:, None]
        x, y = position_probe.decoded_places(features)
        assert x > 0.97
        assert y > 0.95

    def test_it_finds_none_in_noise(self):
        features = torch.randn(16, 6, 8, 12, generator=torch.Generator().manual_seed(0))
        assert max(position_probe.decoded_places(features)) < 0.05

    def test_axes_are_told_apart(self):
        features = torch.randn(16, 6, 8, 12, generator=torch.Generator().manual_seed(0))
        features[:, 0] += 4 * torch.linspace(-1, 1, 12)
        x, y = position_probe.decoded_places(features)
        assert x > 0.5
        assert y < 0.05

    def test_blocks_in_the_order_of_their_calls(self, patched):
        features = position_probe.block_features(patched)
        assert [*features] == [
            "conv_in", "down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1",
        ]  # fmt: skip
        assert features["mid_block"].shape == (IMAGES, 16, 8, 8)
        assert features["up_blocks.1"].shape == (IMAGES, 8, 16, 16)


@pytest.mark.slow
def test_from_adapters_to_the_section(folder, tmp_path, monkeypatch):
    section = import_module("experiments.study.mechanism_section")
    tiny_stable_diffusion().save_pretrained(tmp_path / "model")
    (tmp_path / "study" / "poses").mkdir(parents=True)
    (tmp_path / "study" / "poses" / "test").symlink_to(folder)
    results = tmp_path / "results" / "study" / "mechanism.json"

    def start(*seeds):
        words = ["mechanism", "poses", "--output", tmp_path / "study", "--results", results, "--seeds", *seeds]
        words += ["--model", tmp_path / "model", "--test-images", 8, "--probe-images", 4]
        monkeypatch.setattr(sys, "argv", [*map(str, words)])
        mechanism.main()
        return json.loads(results.read_text())

    with pytest.raises(DataError, match="no adapter of the seeds 10"):
        start(10)
    for seed in (10, 11):
        save_random_adapter(tmp_path / "study" / "poses" / "arms" / "geometry" / f"seed-{seed}" / "final", seed)
    first = start(10)["runs"]
    runs = start(10, 11, 12)["runs"]
    parts = ["energy", "removal", "one layer", "shifted coordinates", "position"]
    assert [(run["variant"], run["seed"]) for run in runs] == [
        ("base", 0), *((part, seed) for seed in (10, 11) for part in parts),
    ]  # fmt: skip
    assert runs[: len(first)] == first
    removal = {run["seed"]: run["scores"] for run in runs if run["variant"] == "removal"}
    assert removal[10]["whole adapter"] != removal[11]["whole adapter"]
    for name in ("mechanism-poses.png", "mechanism-poses-layers.png"):
        assert Image.open(results.with_name(name)).width > 500
    text = section.mechanism_section(json.loads(results.read_text()))
    mean = (removal[10]["whole adapter"] + removal[11]["whole adapter"]) / 2
    assert f"| kept: whole adapter | {mean:.4f} [" in text
    assert "| coordinates shifted: y -1 |" in text
    assert "Loss of the whole adapter: not compared with that of constant terms alone (suggestive, n = 2)" in text
    assert "| conv_out |" in text
    assert "| mid_block | 128 px |" in text
    assert "mechanism-poses-layers.png" in text
    assert "nan" not in text
    import_module("experiments.study.page").write_pages(tmp_path / "results")
    for name in ("study.md", "study.html"):
        page = (tmp_path / "results" / name).read_text(encoding="utf-8")
        assert "Adapters of the arm" in page.split("Why: the mechanism")[1]
