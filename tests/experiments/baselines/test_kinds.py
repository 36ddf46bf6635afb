import math

import pytest
import torch
from experiments.baselines.kinds import KINDS, kind_config, parameter_count, set_kind
from torch import nn

from geopos_diffusers import GeoConvConfig
from geopos_diffusers.errors import ConfigError


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 4, stride=2),
        nn.Flatten(),
        nn.Linear(1296, 2),
    )


def base_weights(model):
    return {name: value for name, value in model.named_parameters() if "geo_weight" not in name}


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [("coord", [(2, 3, 3), (2, 4, 4)]), ("geo", [(1, 3, 3), (1, 4, 4)]), ("geo-multilinear", [(4,), (4,)])],
)
def test_kinds_differ_only_in_coordinate_weights(kind, shapes):
    plain, other = set_kind(network(), "conv", seed=3), set_kind(network(), kind, seed=3)
    # The first convolution's bound counts the coordinate weights; torch's fan-in of a transposed one does not.
    fan_in = 3 * 9 + math.prod(shapes[0])
    scale = dict.fromkeys(("0.weight", "0.bias"), (3 * 9 / fan_in) ** 0.5)
    assert base_weights(plain).keys() == base_weights(other).keys()
    for name, value in base_weights(plain).items():
        torch.testing.assert_close(base_weights(other)[name], value * scale.get(name, 1.0))
    extra = {name: tuple(value.shape) for name, value in other.named_parameters() if "geo_weight" in name}
    assert extra == {"0.geo_weight": (8, *shapes[0]), "2.geo_weight": (4, *shapes[1])}
    counted = parameter_count(network(), kind)
    assert (
        counted
        == parameter_count(other)
        == parameter_count(plain) + 8 * math.prod(shapes[0]) + 4 * math.prod(shapes[1])
    )


def test_weights_fill_the_range_of_the_concatenated_fan_in():
    layer = set_kind(nn.Conv2d(7, 4000, 3), "geo", seed=0)
    for weight in (layer.weight, layer.geo_weight):
        assert weight.abs().max().item() == pytest.approx((8 * 9) ** -0.5, rel=1e-3)
        assert weight.mean().item() == pytest.approx(0, abs=2e-3)


def test_coord_has_one_channel_an_axis_and_no_shift():
    config = kind_config("coord", GeoConvConfig(border="extrapolate", shift_range=1.0))
    assert (config.encoding, config.shift_range, config.border) == ("cartesian", 0.0, "extrapolate")
    model = set_kind(network(), "coord").train()
    pixels = torch.rand(1, 3, 8, 8)
    assert torch.equal(model(pixels), model(pixels))


def test_the_kind_decides_the_basis():
    for basis in ("taps", "multilinear"):
        config = GeoConvConfig(basis=basis, shift_range=1.0)
        assert kind_config("geo", config) == GeoConvConfig(basis="taps", shift_range=1.0)
        assert kind_config("geo-multilinear", config) == GeoConvConfig(basis="multilinear", shift_range=1.0)


def test_the_multilinear_kind_learns_any_product_of_a_line_in_x_and_one_in_y():
    """The last convolution's geometry term alone: 1, x, y and xy of the output pixel."""
    layer = set_kind(nn.Conv2d(1, 1, 3, padding=1), "geo-multilinear").eval()
    with torch.no_grad():
        layer.geo_weight.copy_(torch.tensor([[0.5, 2.0, -1.0, 3.0]]))
        layer.bias.zero_()
    axis = torch.linspace(-1, 1, 5)
    y, x = axis[:, None], axis
    torch.testing.assert_close(layer(torch.zeros(1, 1, 5, 5))[0, 0], 0.5 + 2 * x - y + 3 * x * y)


def test_same_seed_same_weights_and_other_seed_others():
    for kind in KINDS:
        first, second, third = (dict(set_kind(network(), kind, seed=seed).named_parameters()) for seed in (1, 1, 2))
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert not any(torch.equal(first[name], third[name]) for name in first)


@pytest.mark.parametrize("kind", KINDS)
def test_initialisation_of_dcgan(kind):
    def layers():
        return nn.Sequential(
            nn.Conv2d(64, 64, 4), nn.BatchNorm2d(4096), nn.ConvTranspose2d(256, 64, 4), nn.Linear(64, 64)
        )

    model, plain = (set_kind(layers(), name, seed=5, initialisation="dcgan") for name in (kind, "conv"))
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            assert not value.any()
        else:
            assert value.mean().item() == pytest.approx(float(name == "1.weight"), abs=2e-3)
            assert value.std().item() == pytest.approx(0.02, rel=0.05)
    base = base_weights(model)
    assert all(torch.equal(base[name], value) for name, value in plain.named_parameters() if name in base)


def test_unknown_kind():
    with pytest.raises(ConfigError, match="conv, coord, geo, geo-multilinear"):
        set_kind(network(), "cord")
    with pytest.raises(ConfigError, match="torch, dcgan"):
        set_kind(network(), "conv", initialisation="xavier")
