"""Number formats, memory layouts and image sizes."""

import pytest
import torch
from tiny_models import tiny_stable_diffusion
from torch import nn
from trained_models import denoise, draw_geometry, latents_and_text, relative_error, trained_stable_diffusion

from geopos_diffusers import (
    GeoConvConfig,
    apply_geoconv,
    geoconv_parameters,
    geoconv_status,
    load_geoconv_weights,
    save_geoconv_weights,
    set_geoconv_scale,
)
from geopos_diffusers.patching.config import BASES

TOLERANCE = {torch.float16: 0.01, torch.bfloat16: 0.05, torch.float64: 1e-5}


@pytest.fixture(scope="module")
def trained(request, tmp_path_factory):
    """The adapter's folder, and the UNet with it in float32; of coefficients where a test asks for no basis."""
    unet = trained_stable_diffusion(GeoConvConfig(basis=getattr(request, "param", "multilinear"))).unet
    folder = tmp_path_factory.mktemp("adapter")
    save_geoconv_weights(unet, folder)
    return folder, unet


class TestNumberFormats:
    @pytest.mark.parametrize("trained", BASES, indirect=True)
    @pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
    @pytest.mark.parametrize("order", ["before patching", "after patching"])
    def test_either_order(self, trained, dtype, order):
        folder, reference = trained
        unet = tiny_stable_diffusion().unet
        if order == "before patching":
            unet.to(dtype)
        load_geoconv_weights(unet, folder)
        if order == "after patching":
            unet.to(dtype)
        output = denoise(unet, dtype=dtype)
        assert output.dtype == dtype
        assert relative_error(output, denoise(reference)) < TOLERANCE[dtype]

    def test_geometry_weights_stay_float32_beside_half_precision(self):
        """Training an adapter on a half-precision base needs it."""
        unet = tiny_stable_diffusion().unet.half()
        apply_geoconv(unet)
        assert {weight.dtype for weight in geoconv_parameters(unet).values()} == {torch.float32}

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_patching_is_bitwise_neutral_in_half_precision(self, dtype):
        unet = tiny_stable_diffusion().unet.to(dtype)
        before = denoise(unet, dtype=dtype)
        apply_geoconv(unet)
        assert torch.equal(denoise(unet, dtype=dtype), before)

    @pytest.mark.parametrize("trained", BASES, indirect=True)
    def test_autocast(self, trained):
        unet = trained[1]
        with torch.autocast("cpu", torch.bfloat16):
            output = denoise(unet)
        assert relative_error(output, denoise(unet)) < 0.05
        base = tiny_stable_diffusion().unet
        with torch.autocast("cpu", torch.bfloat16):
            before = denoise(base)
            apply_geoconv(base, geoconv_status(unet).config)
            assert torch.equal(denoise(base), before)

    def test_gradients_under_autocast_are_float32(self):
        unet = trained_stable_diffusion().unet
        with torch.autocast("cpu", torch.bfloat16):
            latents, text = latents_and_text(8, 8)
            unet(latents, 7, text).sample.float().square().mean().backward()
        gradients = [weight.grad for weight in geoconv_parameters(unet).values()]
        assert {gradient.dtype for gradient in gradients} == {torch.float32}
        assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


class TestChannelsLast:
    @pytest.mark.parametrize("trained", BASES, indirect=True)
    @pytest.mark.parametrize("order", ["before patching", "after patching"])
    def test_either_order(self, trained, order):
        folder, reference = trained
        unet = tiny_stable_diffusion().unet
        if order == "before patching":
            unet.to(memory_format=torch.channels_last)
        load_geoconv_weights(unet, folder)
        if order == "after patching":
            unet.to(memory_format=torch.channels_last)
        torch.testing.assert_close(denoise(unet), denoise(reference), rtol=0, atol=1e-5)
        image = torch.randn(1, 4, 8, 8).to(memory_format=torch.channels_last)
        assert unet.conv_in(image).is_contiguous(memory_format=torch.channels_last)


class TestOtherSizes:
    """An adapter has no size of its own: coordinates are computed for each input."""

    @pytest.mark.parametrize("normalization", ["unit", "aspect", "pixel"])
    @pytest.mark.parametrize("basis", BASES)
    def test_any_size_and_aspect_ratio(self, normalization, basis):
        unet = trained_stable_diffusion(GeoConvConfig(normalization=normalization, basis=basis)).unet
        for height, width in ((8, 8), (16, 16), (32, 32), (8, 24), (24, 8), (2, 2)):
            output = denoise(unet, height, width)
            assert output.shape == (2, 4, height, width)
            assert output.isfinite().all()

    @pytest.mark.parametrize(
        ("normalization", "expected"),
        [
            # the coordinate of the last column, for widths 16, 32 and 64 of images that are 32 high
            ("unit", [1.0, 1.0, 1.0]),
            ("aspect", [15 / 31, 1.0, 1.0]),
            ("pixel", [15 / 64, 31 / 64, 63 / 64]),
        ],
    )
    def test_what_a_layer_sees_at_the_edge(self, normalization, expected):
        for basis, weights in (("multilinear", [0.0, 1.0, 0.0]), ("taps", [0.0, 1.0])):
            config = GeoConvConfig(encoding="cartesian", normalization=normalization, target_modules=["0"], basis=basis)
            columns = [self.column_at_the_edge(config, weights, width) for width in (16, 32, 64)]
            assert columns == pytest.approx(expected)

    def column_at_the_edge(self, config: GeoConvConfig, weights: list[float], width: int) -> float:
        """Read off a layer whose only geometry weight copies the horizontal coordinate."""
        model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False)).eval()
        apply_geoconv(model, config)
        with torch.no_grad():
            model[0].geo_weight.copy_(torch.tensor(weights).view_as(model[0].geo_weight))
            return model(torch.zeros(1, 1, 32, width))[0, 0, 0, -1].item()

    def test_a_whole_model_sees_one_function_at_every_size(self):
        """The term of each layer at 31 px is that at 16 px, resampled, edges included."""
        unet = trained_stable_diffusion().unet
        layers = [layer for layer in unet.modules() if hasattr(layer, "geo_weight") and layer.stride == (1, 1)]
        assert len(layers) > 5
        for layer in layers:
            with torch.no_grad():
                layer.weight.zero_()
                small, large = (layer(torch.zeros(1, layer.in_channels, size, size)) for size in (16, 31))
            torch.testing.assert_close(large[..., ::2, ::2], small, rtol=0, atol=1e-5)

    def test_unit_coordinates_scale_with_the_image(self):
        """Of taps too, what was learnt at one size is stretched to another where coordinates go on past the edge."""
        layer = nn.Conv2d(1, 1, 3, padding=1)
        model = nn.Sequential(layer).eval()
        apply_geoconv(model, GeoConvConfig(border="extrapolate"))
        with torch.no_grad():
            layer.weight.zero_()
            layer.geo_weight.zero_()
            layer.geo_weight[0, 0, 1, 1] = 1.0
            small, large = (model(torch.zeros(1, 1, size, size)) for size in (16, 31))
        torch.testing.assert_close(large[..., ::2, ::2], small, rtol=0, atol=1e-5)


class TestScale:
    def test_of_one_layer_and_of_all(self):
        unet = trained_stable_diffusion().unet
        full = denoise(unet)
        set_geoconv_scale(unet, 0.5, layers=["conv_in"])
        assert (unet.conv_in.geo_scale, unet.conv_out.geo_scale) == (0.5, 1.0)
        assert not torch.allclose(denoise(unet), full)
        set_geoconv_scale(unet, 0.0)
        assert torch.equal(denoise(unet), denoise(tiny_stable_diffusion().unet))

    def test_scaling_is_scaling_the_weights(self):
        unet, other = trained_stable_diffusion().unet, trained_stable_diffusion().unet
        set_geoconv_scale(unet, 0.3)
        draw_geometry(other, size=0.03)
        torch.testing.assert_close(denoise(unet), denoise(other), rtol=0, atol=1e-5)
