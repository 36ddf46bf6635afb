"""The layers against plain concatenation (see concatenation.py), and what a user of a convolution expects of them."""

import copy
import itertools
import pickle

import pytest
import torch
from concatenation import concatenated_conv, concatenated_conv_transpose, extrapolated_conv
from layer_cases import LAYERS, LAYOUTS, NORMALIZATIONS, SIZE, TRANSPOSED, image, in_both_bases, make
from torch import nn
from torch._dynamo.testing import CompileCounter

from geopos_diffusers import (
    GeoConv2d,
    GeoPosConfig,
    apply_geoconv,
)
from geopos_diffusers.patching.encoding import draw_shift

CHANNELS_LAST = ((2, torch.channels_last), (3, torch.channels_last_3d))
ENCODINGS = ("product", "squares", "sum", "cartesian", "cartesian_radius")


@pytest.fixture(params=["dense", "separable"])
def way(request, monkeypatch):
    """Both ways to compute the term, whatever the size of the image."""
    monkeypatch.setattr("geopos_diffusers.patching.response.DENSE_ELEMENTS", 2**18 if request.param == "dense" else 0)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("axes", [1, 2, 3])
class TestEqualsConcatenation:
    @pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_layouts(self, axes, layout, encoding):
        layer, x = make(LAYERS[axes], layout, encoding=encoding), image(axes)
        torch.testing.assert_close(layer(x), concatenated_conv(layer, x), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("normalization", NORMALIZATIONS)
    @pytest.mark.parametrize("size", [SIZE, (1, 6, 1), (2, 1, 3)])
    def test_sizes(self, axes, normalization, size):
        layer = make(LAYERS[axes], LAYOUTS["same size"], normalization=normalization)
        x = image(axes, size)
        torch.testing.assert_close(layer(x), concatenated_conv(layer, x), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("layout", ["same size", "strided", "dilated", "reflect"])
    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_extrapolated_border(self, axes, layout, encoding):
        layer, x = make(LAYERS[axes], LAYOUTS[layout], encoding=encoding, border="extrapolate"), image(axes)
        torch.testing.assert_close(layer(x), extrapolated_conv(layer, x), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("encoding", ENCODINGS)
    @pytest.mark.parametrize(
        "layout",
        [
            {"kernel_size": 3, "padding": 1},
            {"kernel_size": 4, "stride": 2, "padding": 1},
            {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
            {"kernel_size": 3, "stride": 3, "dilation": 2},
        ],
    )
    def test_transposed(self, axes, encoding, layout):
        layer, x = make(TRANSPOSED[axes], layout, encoding=encoding), image(axes)
        torch.testing.assert_close(layer(x), concatenated_conv_transpose(layer, x), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("unit", ["batch", "sample"])
    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_shift_in_training(self, axes, unit, encoding):
        layer = make(LAYERS[axes], LAYOUTS["strided"], encoding=encoding, shift_unit=unit).train()
        x = image(axes)
        torch.manual_seed(5)
        shift = draw_shift(layer.geo_config, axes, len(x), x).expand(len(x), -1)
        torch.manual_seed(5)
        torch.testing.assert_close(layer(x), concatenated_conv(layer, x, shift), rtol=0, atol=1e-12)
        assert shift.abs().max() > 0.01


@pytest.mark.usefixtures("way")
class TestGradients:
    @pytest.mark.parametrize(("axes", "encoding"), [*itertools.product([1, 2, 3], ENCODINGS)])
    def test_gradcheck(self, axes, encoding):
        layer = make(LAYERS[axes], {"kernel_size": 2, "padding": 1}, encoding=encoding)
        x = torch.randn(2, 4, *(3, 4, 2)[:axes], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda x, w: torch.func.functional_call(layer, {"geo_weight": w}, x), (x, layer.geo_weight)
        )

    @pytest.mark.parametrize(
        "options", [{}, {"encoding": "constant", "basis": "multilinear"}, {"basis": "multilinear"}]
    )
    @pytest.mark.parametrize("recorded", [True, False])
    @pytest.mark.parametrize("width", [8, 80])
    def test_many_geometry_weights_at_once(self, options, recorded, width):
        layer = GeoConv2d(3, 4, 3, padding=1, config=GeoPosConfig(**options)).eval().requires_grad_(False)
        x, weights = torch.randn(2, 3, 8, width), torch.randn(5, *layer.geo_weight.shape)
        with torch.set_grad_enabled(recorded):
            outputs = torch.vmap(lambda weight: torch.func.functional_call(layer, {"geo_weight": weight}, x))(weights)
            expected = [torch.func.functional_call(layer, {"geo_weight": weight}, x) for weight in weights]
        torch.testing.assert_close(outputs, torch.stack(expected), rtol=0, atol=1e-5)

    def test_reaches_only_the_geometry_weight_of_a_frozen_layer(self):
        layer = make(GeoConv2d, LAYOUTS["same size"])
        layer.weight.requires_grad_(False)
        layer.bias.requires_grad_(False)
        layer(image(2)).square().mean().backward()
        assert layer.weight.grad is None
        assert layer.geo_weight.grad.abs().min() > 0


class TestMemoryFormatAndPrecision:
    @pytest.mark.usefixtures("way")
    @pytest.mark.parametrize("encoding", ENCODINGS)
    @pytest.mark.parametrize("training", [False, True])
    @pytest.mark.parametrize(("axes", "memory_format"), CHANNELS_LAST)
    def test_channels_last_is_kept(self, axes, memory_format, encoding, training):
        # In single precision: torch's convolutions of three axes keep the order in memory in that one alone.
        layer = make(LAYERS[axes], LAYOUTS["same size"], encoding=encoding, shift_range=0.0).float().train(training)
        x = image(axes).float()
        expected = layer(x)
        layer.to(memory_format=memory_format)
        with torch.set_grad_enabled(training):
            output = layer(x.to(memory_format=memory_format))
        assert output.is_contiguous(memory_format=memory_format)
        torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)

    @pytest.mark.usefixtures("way")
    @pytest.mark.parametrize(("axes", "memory_format"), CHANNELS_LAST)
    def test_channels_last_takes_a_shift_for_each_sample(self, axes, memory_format):
        layer = make(LAYERS[axes], {"kernel_size": 3, "stride": 2}, shift_unit="sample").float().train()
        outputs = []
        for order in (torch.contiguous_format, memory_format):
            torch.manual_seed(2)
            outputs.append(layer.to(memory_format=order)(image(axes).float().to(memory_format=order)))
        assert outputs[1].is_contiguous(memory_format=memory_format)
        torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-5)

    @pytest.mark.usefixtures("way")
    @pytest.mark.parametrize("training", [False, True])
    def test_layers_after_a_channels_last_one_take_the_same_code_path(self, training):
        """Group normalisation rounds otherwise on another order in memory."""
        torch.manual_seed(0)
        layers = (nn.Conv3d(8, 32, 3, padding=1), nn.GroupNorm(8, 32), nn.SiLU(), nn.Conv3d(32, 8, 3, padding=1))
        model, x = nn.Sequential(*layers).to(memory_format=torch.channels_last_3d), torch.randn(2, 8, 5, 6, 7)
        with torch.set_grad_enabled(training):
            expected = model.train(training)(x)
            apply_geoconv(model)
            assert torch.equal(model(x), expected)

    @in_both_bases
    def test_no_view_is_returned_in_training(self, basis):
        """Activations in place copy the memory of a view once more."""
        layer = make(GeoConv2d, LAYOUTS["same size"], basis=basis).train()
        for memory_format in (torch.contiguous_format, torch.channels_last):
            output = layer.to(memory_format=memory_format)(image(2).to(memory_format=memory_format))
            assert not output._is_view()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_keeps_differences_between_neighbours(self, dtype):
        layer = make(GeoConv2d, LAYOUTS["same size"]).float()
        with torch.no_grad():
            layer.weight.zero_()
            layer.bias.zero_()
            layer.geo_weight.zero_()
            layer.geo_weight[:, 0, 1, 1], layer.geo_weight[:, 0, 1, 2] = -100.0, 100.0
        x = torch.zeros(1, 4, 1, 512)
        reference = layer(x)[..., :-1]
        layer.weight.data, layer.bias.data = layer.weight.to(dtype), layer.bias.to(dtype)
        assert layer.geo_weight.dtype == torch.float32
        with torch.no_grad():
            output = layer(x.to(dtype))[..., :-1]
        assert output.dtype == dtype
        torch.testing.assert_close(output.float(), reference, rtol=0.01, atol=1e-3)

    def test_autocast(self):
        layer = make(GeoConv2d, LAYOUTS["same size"]).float()
        x = image(2).float()
        with torch.autocast("cpu", torch.bfloat16):
            output = layer(x)
        assert output.dtype == torch.bfloat16
        torch.testing.assert_close(output.float(), layer(x), rtol=0.02, atol=0.02)

    def test_unbatched_input(self):
        layer, x = make(GeoConv2d, LAYOUTS["same size"]), image(2)
        torch.testing.assert_close(layer(x[0]), layer(x)[0], rtol=0, atol=1e-12)

    def test_tables_made_in_inference_mode_serve_training(self):
        layer = make(GeoConv2d, LAYOUTS["same size"], shift_range=0.0)
        x = image(2, (6, 11))
        with torch.inference_mode():
            expected = layer(x)
        output = layer.train()(x)
        output.sum().backward()
        torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)


class TestShift:
    @in_both_bases
    def test_only_in_training(self, basis):
        layer, x = make(GeoConv2d, LAYOUTS["same size"], basis=basis), image(2)
        assert torch.equal(layer(x), layer(x))
        layer.train()
        assert not torch.equal(layer(x), layer(x))

    @in_both_bases
    def test_at_inference_leaves_the_global_generator_alone(self, basis):
        layer, x = make(GeoConv2d, LAYOUTS["same size"], basis=basis, shift_at_inference=True), image(2)
        state = torch.get_rng_state()
        assert not torch.equal(layer(x), layer(x))
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.parametrize("use_reentrant", [False, True])
    def test_replays_under_gradient_checkpointing(self, use_reentrant):
        layer = make(GeoConv2d, LAYOUTS["same size"], shift_unit="sample").train()
        x = image(2).requires_grad_()
        gradients = []
        for run in (layer, lambda x: torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=use_reentrant)):
            torch.manual_seed(3)
            layer.zero_grad()
            run(x).square().sum().backward()
            gradients.append(layer.geo_weight.grad.clone())
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)

    def test_a_layer_of_its_own_draws_in_training_mode_as_dropout_does(self):
        layer, x = make(GeoConv2d, LAYOUTS["same size"]).train(), image(2)
        with torch.no_grad():
            assert not torch.equal(layer(x), layer(x))


class TestConstruction:
    @pytest.mark.parametrize("cls", [*LAYERS.values(), *TRANSPOSED.values()])
    def test_without_initialisation(self, cls):
        """torch builds it on the meta device first."""
        layer, plain = nn.utils.skip_init(cls, 4, 6, 3), cls(4, 6, 3)
        assert layer.geo_config == plain.geo_config
        shapes = [[(name, one.shape, one.device.type) for name, one in m.named_parameters()] for m in (layer, plain)]
        assert shapes[0] == shapes[1]

    @pytest.mark.parametrize("cls", [*LAYERS.values(), *TRANSPOSED.values()])
    def test_geometry_weight_shape_and_scale(self, cls):
        layer = cls(8, 5, 3)
        axes = len(layer.kernel_size)
        assert layer.geo_weight.shape == (5, 1, *[3] * axes)
        fan_in = (5 if layer.transposed else 9) * 3**axes
        for parameter in (layer.weight, layer.geo_weight, layer.bias):
            assert parameter.abs().max() <= fan_in**-0.5
            assert parameter.abs().max() > 0.5 * fan_in**-0.5

    def test_zero_scale_is_exactly_the_convolution(self):
        layer, x = make(GeoConv2d, LAYOUTS["same size"]), image(2)
        plain = nn.Conv2d(4, 6, 3, padding=1).double()
        plain.load_state_dict({"weight": layer.weight, "bias": layer.bias})
        layer.geo_scale = 0.0
        assert torch.equal(layer(x), plain(x))

    def test_scale_is_linear(self):
        layer, x = make(GeoConv2d, LAYOUTS["same size"]), image(2)
        outputs = []
        for layer.geo_scale in (0.0, 1.0, 2.5):
            outputs.append(layer(x))
        torch.testing.assert_close(outputs[2] - outputs[0], 2.5 * (outputs[1] - outputs[0]), rtol=0, atol=1e-12)

    @in_both_bases
    def test_copies_and_pickles(self, basis):
        layer, x = make(GeoConv2d, LAYOUTS["same size"], basis=basis), image(2)
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(twin(x), layer(x))

    def test_fewer_parameters_than_coordconv(self):
        """C5 of the paper: (n - 1) * l fewer a filter, for a kernel of l weights."""
        for axes, cls in LAYERS.items():
            geo = cls(4, 6, 3)
            coord = cls(4, 6, 3, config=GeoPosConfig(encoding="cartesian"))
            counts = [sum(p.numel() for p in layer.parameters()) for layer in (coord, geo)]
            assert counts[0] - counts[1] == 6 * (axes - 1) * 3**axes


def test_compiles_to_one_dynamic_graph_after_the_first_resolution():
    torch._dynamo.reset()
    layer = make(GeoConv2d, LAYOUTS["same size"]).float()
    counter = CompileCounter()
    compiled = torch.compile(layer, backend=counter, fullgraph=True)
    with torch.no_grad():
        for size in (8, 12, 16, 24):
            x = torch.randn(1, 4, size, size + 2)
            torch.testing.assert_close(compiled(x), layer(x))
    assert counter.frame_count <= 2
