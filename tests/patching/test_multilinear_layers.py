"""Layers whose geometry weights are coefficients, against a loop over output pixels (see polynomials.py).

What test_layers.py asks of taps is asked of coefficients here.
"""

import copy
import itertools
from functools import partial

import pytest
import torch
from concatenation import concatenated_conv
from layer_cases import LAYERS, LAYOUTS, NORMALIZATIONS, SIZE, TRANSPOSED, image
from layer_cases import make as make_in_taps
from polynomials import multilinear_conv, plain, polynomial_term
from torch import nn
from torch._dynamo.testing import CompileCounter

from geopos_diffusers import GeoConv1d, GeoConv2d, GeoConvConfig, GeoPosConfig, apply_geoconv
from geopos_diffusers.errors import ConfigError
from geopos_diffusers.patching.encoding import draw_shift

ENCODINGS = ("product", "cartesian", "constant")
TRANSPOSED_LAYOUTS = (
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 4, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    {"kernel_size": 3, "stride": 3, "dilation": 2},
    {"kernel_size": 1},
)


make = partial(make_in_taps, basis="multilinear")


@pytest.fixture(params=["dense", "separable"])
def trained_way(request, monkeypatch):
    """Both ways to compute the term with gradients, whatever the size of the image."""
    monkeypatch.setattr("geopos_diffusers.patching.response.DENSE_ELEMENTS", 2**18 if request.param == "dense" else 0)


@pytest.fixture(params=["dense", "separable", "lines"])
def way(request, monkeypatch):
    """The three ways to compute the term, whatever the size of the image; lines are added without gradients alone."""
    monkeypatch.setattr("geopos_diffusers.patching.response.DENSE_ELEMENTS", 2**18 if request.param == "dense" else 0)
    monkeypatch.setattr("geopos_diffusers.patching.response.LINE_LENGTH", 1)
    with torch.set_grad_enabled(request.param != "lines"):
        yield


def close(output, expected):
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("axes", [1, 2, 3])
class TestEqualsThePolynomial:
    @pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_layouts(self, axes, layout, encoding):
        layer, x = make(LAYERS[axes], layout, encoding=encoding), image(axes)
        close(layer(x), multilinear_conv(layer, x))

    @pytest.mark.parametrize("layout", TRANSPOSED_LAYOUTS)
    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_transposed(self, axes, layout, encoding):
        layer, x = make(TRANSPOSED[axes], layout, encoding=encoding), image(axes)
        close(layer(x), multilinear_conv(layer, x))

    @pytest.mark.parametrize("normalization", NORMALIZATIONS)
    @pytest.mark.parametrize("size", [SIZE, (1, 6, 1), (2, 1, 3)])
    def test_sizes(self, axes, normalization, size):
        layer, x = make(LAYERS[axes], LAYOUTS["same size"], normalization=normalization), image(axes, size)
        close(layer(x), multilinear_conv(layer, x))

    @pytest.mark.parametrize("unit", ["batch", "sample"])
    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_shift_in_training(self, axes, unit, encoding):
        layer = make(LAYERS[axes], LAYOUTS["strided"], encoding=encoding, shift_unit=unit).train()
        x = image(axes)
        torch.manual_seed(5)
        shifts = draw_shift(layer.geo_config, axes, len(x), x).expand(len(x), -1)
        torch.manual_seed(5)
        close(layer(x), multilinear_conv(layer, x, shifts))
        assert shifts.abs().max() > 0.01

    def test_zero_coefficients_change_nothing(self, axes):
        """Not even the sign of a zero counts: -0.0 may become 0.0, which is equal."""
        for cls, training in itertools.product((LAYERS[axes], TRANSPOSED[axes]), (False, True)):
            layer, x = make(cls, LAYOUTS["same size"]).train(training), image(axes)
            with torch.no_grad():
                layer.geo_weight.zero_()
                (layer.weight[:, 0] if layer.transposed else layer.weight[0]).zero_()
                layer.bias[0] = -0.0
            with torch.set_grad_enabled(training):
                output = layer(x)
            assert torch.equal(output, plain(layer)(x))
            assert not output[:, 0].any()

    def test_the_same_function_at_every_size(self, axes):
        """At 2 L - 1 pixels every other one lies where one of L did; edges included, whatever pads the convolution."""
        layer = make(LAYERS[axes], LAYOUTS["same size"])
        nn.init.zeros_(layer.weight)
        small = [5, 4, 3][:axes]
        large = [2 * length - 1 for length in small]
        with torch.no_grad():
            coarse, fine = (layer(torch.zeros(1, 4, *size, dtype=torch.float64)) for size in (small, large))
        close(fine[(..., *[slice(None, None, 2)] * axes)], coarse)
        assert coarse.std() > 0.05


@pytest.mark.usefixtures("trained_way")
@pytest.mark.parametrize("axes", [1, 2, 3])
class TestGradients:
    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_gradcheck(self, axes, encoding):
        layer = make(LAYERS[axes], {"kernel_size": 2, "padding": 1}, encoding=encoding)
        x = torch.randn(2, 4, *(3, 4, 2)[:axes], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda x, w: torch.func.functional_call(layer, {"geo_weight": w}, x), (x, layer.geo_weight)
        )

    def test_a_float32_gradient_is_that_of_float64(self, axes):
        layer, x = make(LAYERS[axes], LAYOUTS["same size"], shift_range=0.0).train(), image(axes)
        gradients = []
        for dtype in (torch.float64, torch.float32):
            twin = copy.deepcopy(layer).to(dtype)
            twin(x.to(dtype)).square().mean().backward()
            gradients.append(twin.geo_weight.grad.double())
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


class TestAtDoubleSize:
    def test_half_pixels_are_the_mean_of_their_neighbours(self):
        """Between its pixels the term is what linear interpolation gives, also where no size is odd."""
        layer = make(GeoConv1d, LAYOUTS["same size"])
        nn.init.zeros_(layer.weight)
        with torch.no_grad():
            term = layer(torch.zeros(1, 4, 8, dtype=torch.float64))
            fine = layer(torch.zeros(1, 4, 16, dtype=torch.float64))
        expected = nn.functional.interpolate(term, size=16, mode="linear", align_corners=True)
        close(fine, expected)


class TestMemoryFormatAndPrecision:
    @pytest.mark.usefixtures("way")
    @pytest.mark.parametrize("unit", ["batch", "sample"])
    @pytest.mark.parametrize("encoding", ENCODINGS)
    @pytest.mark.parametrize("training", [False, True])
    def test_channels_last_is_kept(self, encoding, training, unit):
        layer = make(GeoConv2d, LAYOUTS["same size"], encoding=encoding, shift_unit=unit).train(training)
        x = image(2)
        torch.manual_seed(7)
        expected = layer(x)
        layer.to(memory_format=torch.channels_last)
        torch.manual_seed(7)
        with torch.set_grad_enabled(training):
            output = layer(x.to(memory_format=torch.channels_last))
        assert output.is_contiguous(memory_format=torch.channels_last)
        close(output, expected)

    @pytest.mark.parametrize("encoding", ENCODINGS)
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_computes_coordinates_in_float32(self, dtype, encoding):
        """With slopes of 200 over 512 pixels neighbours differ by 0.8: coordinates in bfloat16 would repeat."""
        layer = make(GeoConv2d, LAYOUTS["same size"], encoding=encoding).float()
        with torch.no_grad():
            layer.weight.zero_()
            layer.bias.zero_()
            layer.geo_weight.zero_()
            layer.geo_weight[:, : 2 if encoding != "constant" else 1] = 1.0 if encoding == "constant" else 200.0
        reference = polynomial_term(layer, (1, 512), (1, 512)).float()
        layer.weight.data, layer.bias.data = layer.weight.to(dtype), layer.bias.to(dtype)
        assert layer.geo_weight.dtype == torch.float32
        with torch.no_grad():
            output = layer(torch.zeros(1, 4, 1, 512, dtype=dtype))
        assert output.dtype == dtype
        torch.testing.assert_close(output[0].float(), reference, rtol=torch.finfo(dtype).eps, atol=1e-4)

    @pytest.mark.parametrize("encoding", ENCODINGS)
    @pytest.mark.parametrize("training", [False, True])
    def test_autocast(self, encoding, training):
        layer = make(GeoConv2d, LAYOUTS["same size"], encoding=encoding, shift_range=0.0).float().train(training)
        x = image(2).float()
        with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(training):
            output = layer(x)
        assert output.dtype == torch.bfloat16
        torch.testing.assert_close(output.float(), layer(x), rtol=0.02, atol=0.02)

    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_unbatched_input(self, encoding):
        layer, x = make(GeoConv2d, LAYOUTS["same size"], encoding=encoding), image(2)
        close(layer(x[0]), layer(x)[0])

    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_tables_made_in_inference_mode_serve_training(self, encoding):
        layer = make(GeoConv2d, LAYOUTS["same size"], shift_range=0.0, encoding=encoding)
        x = image(2, (6, 11))
        with torch.inference_mode():
            expected = layer(x)
        output = layer.train()(x)
        output.sum().backward()
        close(output, expected)

    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_an_input_is_never_overwritten(self, encoding):
        layer, x = make(GeoConv2d, {"kernel_size": 1}, encoding=encoding), image(2)
        before = x.clone()
        with torch.no_grad():
            layer(x)
        assert torch.equal(x, before)

    def test_bases_share_no_tables(self):
        """Tables are kept by geometry; those of two taps and of the powers 0 and 1 have the same shape."""
        x = image(2)
        taps, coefficients = (
            GeoConv2d(4, 6, 2, config=GeoPosConfig(basis=basis)).double().eval() for basis in ("taps", "multilinear")
        )
        for first, second in ((taps, coefficients), (coefficients, taps)):
            first(x)
            second(x)
        close(coefficients(x), multilinear_conv(coefficients, x))
        close(taps(x), concatenated_conv(taps, x))


class TestShift:
    def test_a_constant_draws_none(self):
        layer, x = make(GeoConv2d, LAYOUTS["same size"], encoding="constant").train(), image(2)
        state = torch.get_rng_state()
        layer(x)
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.usefixtures("way")
    def test_one_draw_serves_all_layers_of_a_model(self):
        """shift_scope="model": layers of one size and equal weights add the same term."""
        model = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(3))).train()
        apply_geoconv(model, GeoConvConfig(shift_scope="model"))
        terms = []
        for layer in model:
            nn.init.zeros_(layer.weight)
            nn.init.ones_(layer.geo_weight)
            layer.register_forward_hook(lambda layer, args, output: terms.append(output.detach()))
        with torch.enable_grad():
            model(torch.zeros(1, 1, 5, 5))
            model(torch.zeros(1, 1, 5, 5))
        assert torch.equal(terms[0], terms[1])
        assert torch.equal(terms[0], terms[2])
        assert not torch.equal(terms[0], terms[3])

    @pytest.mark.parametrize("unit", ["batch", "sample"])
    def test_replays_under_gradient_checkpointing(self, unit):
        layer = make(GeoConv2d, LAYOUTS["same size"], shift_unit=unit).train()
        x = image(2).requires_grad_()
        gradients = []
        for run in (layer, lambda x: torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)):
            torch.manual_seed(3)
            layer.zero_grad()
            run(x).square().sum().backward()
            gradients.append(layer.geo_weight.grad.clone())
        assert torch.equal(*gradients)


class TestConstruction:
    @pytest.mark.parametrize("cls", [*LAYERS.values(), *TRANSPOSED.values()])
    @pytest.mark.parametrize(
        ("encoding", "terms"), [("product", (2, 4, 8)), ("cartesian", (2, 3, 4)), ("constant", (1,) * 3)]
    )
    def test_coefficients_a_filter(self, cls, encoding, terms):
        layer = cls(8, 5, 3, config=GeoPosConfig(encoding=encoding, basis="multilinear"))
        assert layer.geo_weight.shape == (5, terms[len(layer.kernel_size) - 1])

    def test_a_layer_that_is_built_has_taps_unless_told(self):
        assert GeoConv2d(1, 1, 3).geo_config.basis == "taps"
        assert GeoConv2d(1, 1, 3, basis="multilinear").geo_weight.shape == (1, 4)
        assert GeoConv2d(1, 1, 3, config=GeoPosConfig(basis="multilinear"), basis="taps").geo_weight.dim() == 4
        assert GeoConvConfig().basis == "multilinear"
        assert GeoConvConfig(border="extrapolate").basis == GeoConvConfig(encoding="squares").basis == "taps"

    @pytest.mark.parametrize(
        ("options", "value"),
        [({"encoding": name, "basis": "multilinear"}, f"'{name}'") for name in ("squares", "sum", "cartesian_radius")]
        + [
            ({"basis": "multilinear", "border": "zeros"}, "'zeros'"),
            ({"basis": "multilinear", "border": "extrapolate"}, "'extrapolate'"),
            ({"encoding": "constant", "basis": "taps"}, "'constant'"),
            ({"encoding": "constant", "border": "zeros"}, "'zeros'"),
            ({"basis": "fourier"}, "'fourier'"),
        ],
    )
    @pytest.mark.parametrize("cls", [GeoPosConfig, GeoConvConfig])
    def test_what_does_not_go_together_is_refused_in_one_line(self, cls, options, value):
        with pytest.raises(ConfigError) as caught:
            cls(**options)
        assert value in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_scale_is_linear_and_zero_is_the_convolution(self):
        layer, x = make(GeoConv2d, LAYOUTS["same size"]), image(2)
        outputs = []
        for layer.geo_scale in (0.0, 1.0, 2.5):
            outputs.append(layer(x))
        assert torch.equal(outputs[0], plain(layer)(x))
        close(outputs[2] - outputs[0], 2.5 * (outputs[1] - outputs[0]))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_compiles_to_one_dynamic_graph_after_the_first_resolution(encoding):
    torch._dynamo.reset()
    layer = make(GeoConv2d, LAYOUTS["same size"], encoding=encoding).float()
    counter = CompileCounter()
    compiled = torch.compile(layer, backend=counter, fullgraph=True)
    with torch.no_grad():
        for size in (8, 12, 16, 24):
            x = torch.randn(1, 4, size, size + 2)
            torch.testing.assert_close(compiled(x), layer(x))
    assert counter.frame_count <= 2
