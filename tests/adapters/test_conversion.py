"""Taps turned into coefficients answer alike on the interior at the size they were converted for."""

import subprocess
import sys

import pytest
import torch
from diffusers import DiffusionPipeline
from tiny_models import tiny_stable_diffusion
from torch import nn
from trained_models import denoise, draw_geometry, trained_stable_diffusion

from geopos_diffusers import (
    GeoConvConfig,
    GeoPosConfig,
    apply_geoconv,
    geoconv_parameters,
    geoconv_status,
    load_geoconv_weights,
    save_geoconv_weights,
    set_geoconv_scale,
)
from geopos_diffusers.adapters.conversion import convert_adapter, run_once, taps_to_multilinear
from geopos_diffusers.adapters.files import WEIGHTS_NAME, read_adapter
from geopos_diffusers.cli.main import main
from geopos_diffusers.errors import AdapterError, ConfigError
from geopos_diffusers.patching.layers import (
    GeoConv1d,
    GeoConv2d,
    GeoConv3d,
    GeoConvTranspose1d,
    GeoConvTranspose2d,
    GeoConvTranspose3d,
)

LAYERS = {1: GeoConv1d, 2: GeoConv2d, 3: GeoConv3d}
TRANSPOSED = {1: GeoConvTranspose1d, 2: GeoConvTranspose2d, 3: GeoConvTranspose3d}
SIZE = (13, 16, 11)
# options of the convolution; output pixels at each end whose taps reach beyond the input
LAYOUTS = {
    "padding": ({"kernel_size": 3, "padding": 1}, 1),
    "no padding": ({"kernel_size": 3}, 0),
    "even kernel": ({"kernel_size": 4, "padding": 2}, 2),
    "padding same, even kernel": ({"kernel_size": 4, "padding": "same"}, 2),
    "stride": ({"kernel_size": 3, "stride": 2, "padding": 1}, 1),
    "stride over the kernel": ({"kernel_size": 2, "stride": 3}, 0),
    "dilation": ({"kernel_size": 3, "dilation": 2, "padding": 2}, 2),
    "reflect": ({"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}, 1),
    "one tap": ({"kernel_size": 1}, 0),
}
TRANSPOSED_LAYOUTS = {
    "padding": ({"kernel_size": 3, "padding": 1}, 1),
    "no padding": ({"kernel_size": 4}, 3),
    "dilation": ({"kernel_size": 3, "dilation": 2, "padding": 1}, 3),
}


def twins(cls, layout: dict, config: GeoPosConfig, size: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
    """A layer of taps, and one of coefficients with the same convolution and converted weights; float64."""
    torch.manual_seed(0)
    taps = cls(2, 5, **layout, config=config).double().eval()
    options = {"encoding": config.encoding, "normalization": config.normalization, "basis": "multilinear"}
    coefficients = cls(2, 5, **layout, config=GeoPosConfig(**options)).double().eval()
    with torch.no_grad():
        coefficients.weight.copy_(taps.weight)
        coefficients.bias.copy_(taps.bias)
        coefficients.geo_weight.copy_(taps_to_multilinear(taps.geo_weight, taps, size, config))
    return taps, coefficients


@pytest.mark.parametrize("axes", [1, 2, 3])
class TestOneLayer:
    @pytest.mark.parametrize("normalization", ["unit", "aspect", "pixel"])
    @pytest.mark.parametrize("encoding", ["product", "cartesian"])
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_equal_on_the_interior(self, axes, layout, encoding, normalization):
        options, rim = LAYOUTS[layout]
        self.compare(LAYERS, axes, options, rim, GeoPosConfig(encoding=encoding, normalization=normalization))

    @pytest.mark.parametrize("encoding", ["product", "cartesian"])
    @pytest.mark.parametrize("layout", TRANSPOSED_LAYOUTS)
    def test_transposed(self, axes, layout, encoding):
        options, rim = TRANSPOSED_LAYOUTS[layout]
        self.compare(TRANSPOSED, axes, options, rim, GeoPosConfig(encoding=encoding))

    def test_equal_up_to_the_edge_where_coordinates_go_on(self, axes):
        self.compare(LAYERS, axes, {"kernel_size": 3, "padding": 1}, 0, GeoPosConfig(border="extrapolate"))

    def test_only_on_the_interior_and_only_at_its_size(self, axes):
        size = SIZE[:axes]
        taps, coefficients = twins(LAYERS[axes], {"kernel_size": 3, "padding": 1}, GeoPosConfig(), size)
        x = torch.randn(1, 2, *size, dtype=torch.float64)
        assert (taps(x) - coefficients(x)).abs().max() > 1e-3
        inner = (..., *[slice(1, -1)] * axes)
        larger = torch.randn(1, 2, *[2 * length for length in size], dtype=torch.float64)
        assert (taps(larger) - coefficients(larger))[inner].abs().max() > 1e-3

    def test_a_strided_transposed_convolution_is_refused(self, axes):
        layer = TRANSPOSED[axes](2, 3, 4, stride=2, padding=1)
        with pytest.raises(AdapterError, match="stride 2"):
            taps_to_multilinear(layer.geo_weight, layer, SIZE[:axes], layer.geo_config)

    def compare(self, classes, axes, options, rim, config):
        size = SIZE[:axes]
        taps, coefficients = twins(classes[axes], options, config, size)
        x = torch.randn(2, 2, *size, dtype=torch.float64)
        left, right = taps(x), coefficients(x)
        inner = (..., *[slice(rim, length - rim) for length in left.shape[2:]])
        assert left[inner].numel()
        torch.testing.assert_close(left[inner], right[inner], rtol=0, atol=1e-12)


def taps_pipeline(config: GeoConvConfig | None = None):
    return trained_stable_diffusion(config or GeoConvConfig(basis="taps", shift_range=0.0))


class TestPipeline:
    def test_every_layer_is_converted_for_the_size_of_its_own_input(self):
        pipe = taps_pipeline()
        weights = {name: weight.detach().clone() for name, weight in geoconv_parameters(pipe).items()}
        status = convert_adapter(pipe, lambda: run_once(pipe, 32, 48))
        assert (status.config.basis, status.config.border) == ("multilinear", None)
        size_of = {"unet.conv_in": (16, 24), "unet.mid_block.resnets.0.conv1": (8, 12), "unet.conv_out": (16, 24)}
        for name, size in size_of.items():
            layer, key = pipe.unet.get_submodule(name.removeprefix("unet.")), f"{name}.geo_weight"
            expected = taps_to_multilinear(weights[key], layer, size, GeoPosConfig())
            torch.testing.assert_close(layer.geo_weight.detach(), expected)

    def test_without_a_border_the_model_stays_the_same_function(self):
        pipe = taps_pipeline(GeoConvConfig(basis="taps", border="extrapolate"))
        set_geoconv_scale(pipe, 0.5, layers=["conv_in"])
        set_geoconv_scale(pipe, 0.0, layers=["conv_out"])
        before, elsewhere = denoise(pipe.unet), denoise(pipe.unet, 8, 8)
        convert_adapter(pipe, lambda: run_once(pipe, 32, 32))
        assert (pipe.unet.conv_in.geo_scale, pipe.unet.conv_out.geo_scale) == (0.5, 0.0)
        torch.testing.assert_close(denoise(pipe.unet), before, rtol=0, atol=1e-5)
        assert (denoise(pipe.unet, 8, 8) - elsewhere).abs().max() > 1e-3

    def test_the_vae_is_run_both_ways(self):
        pipe = taps_pipeline(GeoConvConfig(basis="taps", border="extrapolate", components=("unet", "vae")))
        image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            before = pipe.vae(image).sample
            convert_adapter(pipe, lambda: run_once(pipe, 32, 32))
            torch.testing.assert_close(pipe.vae(image).sample, before, rtol=0, atol=1e-4)

    def test_a_convolution_that_pads_its_own_input_is_converted_for_what_it_pads(self):
        class Padded(nn.Conv2d):
            def forward(self, x):
                return super().forward(nn.functional.pad(x, (2, 0, 2, 0)))

        model = nn.Sequential(Padded(1, 2, 3)).eval()
        apply_geoconv(model, GeoConvConfig(basis="taps"))
        draw_geometry(model)
        x = torch.zeros(1, 1, 6, 6)
        with torch.no_grad():
            before = model(x)
            convert_adapter(model, lambda: model(x))
            torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)


class TestRefusals:
    def refused(self, model, message, run=lambda: None):
        before = {name: weight.detach().clone() for name, weight in geoconv_parameters(model).items()}
        status = geoconv_status(model)
        with pytest.raises(AdapterError) as caught:
            convert_adapter(model, run)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        assert geoconv_status(model) == status
        after = geoconv_parameters(model)
        assert all(torch.equal(after[name], weight) for name, weight in before.items())
        assert not any("_add_geometry" in vars(layer) for layer in model.modules())

    def patched(self, *layers, **config):
        model = nn.Sequential(*layers).eval()
        apply_geoconv(model, GeoConvConfig(**config))
        draw_geometry(model)
        return model

    def test_an_unpatched_model(self):
        self.refused(nn.Sequential(nn.Conv2d(1, 1, 3)), "not patched")

    def test_coefficients(self):
        self.refused(self.patched(nn.Conv2d(1, 1, 3)), "multilinear")

    def test_an_encoding_without_coefficients(self):
        self.refused(
            self.patched(nn.Conv2d(1, 1, 3), encoding="squares"), "encoding 'squares' has no multilinear basis"
        )

    def test_a_layer_at_several_sizes(self):
        model = self.patched(nn.Conv2d(1, 1, 3), basis="taps")

        def run():
            model(torch.zeros(1, 1, 8, 8))
            model(torch.zeros(1, 1, 6, 9))

        self.refused(model, "6x9, 8x8", run)

    def test_a_layer_that_does_not_run(self):
        self.refused(self.patched(nn.Conv2d(1, 1, 3), basis="taps"), "0 did not run")

    def test_a_strided_transposed_convolution_names_its_layer(self):
        model = self.patched(nn.Conv2d(1, 1, 3), nn.ConvTranspose2d(1, 1, 2, stride=2), basis="taps")
        self.refused(model, "stride 2x2", lambda: model(torch.zeros(1, 1, 8, 8)))

    def test_several_adapters(self, tmp_path):
        model = self.patched(nn.Conv2d(1, 1, 3), basis="taps")
        save_geoconv_weights(model, tmp_path)
        load_geoconv_weights(model, tmp_path, "other")
        self.refused(model, "default, other")

    def test_offloaded_weights(self):
        from accelerate import cpu_offload

        model = self.patched(nn.Conv2d(1, 1, 3), basis="taps")
        cpu_offload(model)
        with pytest.raises(AdapterError, match="offloaded"):
            convert_adapter(model, lambda: None)

    def test_a_pipeline_without_sizes_or_a_size_that_it_cannot_draw(self):
        class Unsized(DiffusionPipeline):
            def __call__(self, prompt):
                pass

        with pytest.raises(ConfigError, match="height, width, num_inference_steps"):
            run_once(Unsized(), 32, 32)
        with pytest.raises(ConfigError, match="31x32"):
            run_once(tiny_stable_diffusion(), 31, 32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny pipeline, and an adapter of taps whose coordinates go on past the edge."""
    folder = tmp_path_factory.mktemp("convert")
    pipe = tiny_stable_diffusion()
    pipe.save_pretrained(folder / "model")
    apply_geoconv(pipe, GeoConvConfig(basis="taps", border="extrapolate"))
    draw_geometry(pipe)
    save_geoconv_weights(pipe, folder / "taps")
    return folder, denoise(pipe.unet)


class TestCommand:
    def test_as_a_process(self, folders, tmp_path):
        folder, expected = folders
        command = [sys.executable, "-m", "geopos_diffusers.cli.main", "convert", str(folder / "taps"), "--size", "32"]
        command += ["--model", str(folder / "model"), "--output", str(tmp_path / "new")]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert "layers for 32x32 pixels" in result.stdout
        _, values = read_adapter(tmp_path / "new" / WEIGHTS_NAME)
        assert values["basis"] == "multilinear"
        assert "for images of 32x32 pixels" in (tmp_path / "new" / "README.md").read_text()
        pipe = tiny_stable_diffusion()
        load_geoconv_weights(pipe, tmp_path / "new")
        torch.testing.assert_close(denoise(pipe.unet), expected, rtol=0, atol=1e-5)
        again = subprocess.run(command, capture_output=True, text=True)
        assert again.returncode == 2
        assert again.stderr.splitlines()[-1].startswith("geopos convert: error: ")
        assert "is not empty; choose another or add --overwrite" in again.stderr

    @pytest.mark.parametrize("size", [["0"], ["8", "8", "8"], ["31"]])
    def test_a_bad_size(self, folders, size, tmp_path, capsys):
        folder, _ = folders
        arguments = [str(folder / "taps"), "--model", str(folder / "model"), "--output", str(tmp_path / "new")]
        assert main(["convert", *arguments, "--size", *size]) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith("geopos convert: error: ")
        assert not (tmp_path / "new").exists()

    def test_what_is_multilinear_already(self, folders, tmp_path, capsys):
        folder, _ = folders
        pipe = trained_stable_diffusion()
        save_geoconv_weights(pipe, tmp_path / "old")
        arguments = [str(tmp_path / "old"), "--model", str(folder / "model"), "--size", "32"]
        assert main(["convert", *arguments, "--output", str(tmp_path / "new")]) == 2
        assert "multilinear" in capsys.readouterr().err
        assert not (tmp_path / "new").exists()
