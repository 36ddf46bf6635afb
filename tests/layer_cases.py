"""Layers, layouts and inputs that the tests of both bases share."""

import pytest
import torch

from geopos_diffusers import (
    GeoConv1d,
    GeoConv2d,
    GeoConv3d,
    GeoConvTranspose1d,
    GeoConvTranspose2d,
    GeoConvTranspose3d,
    GeoPosConfig,
)

NORMALIZATIONS = ("unit", "aspect", "pixel")
LAYERS = {1: GeoConv1d, 2: GeoConv2d, 3: GeoConv3d}
TRANSPOSED = {1: GeoConvTranspose1d, 2: GeoConvTranspose2d, 3: GeoConvTranspose3d}
SIZE = (7, 9, 5)
LAYOUTS = {
    "same size": {"kernel_size": 3, "padding": 1},
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "no padding": {"kernel_size": 2},
    "dilated": {"kernel_size": 3, "dilation": 2, "padding": 2},
    "padding same, even kernel": {"kernel_size": 4, "padding": "same"},
    "padding valid": {"kernel_size": 3, "padding": "valid"},
    "grouped": {"kernel_size": 3, "padding": 1, "groups": 2},
    "without bias": {"kernel_size": 3, "padding": 1, "bias": False},
    "reflect": {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"},
    "replicate": {"kernel_size": 3, "padding": 2, "padding_mode": "replicate"},
    "circular": {"kernel_size": 3, "padding": 2, "padding_mode": "circular"},
    "one tap": {"kernel_size": 1},
}


# What holds in both bases is tested in test_layers.py.
in_both_bases = pytest.mark.parametrize("basis", ["taps", "multilinear"])


def make(cls, layout: dict, **options):
    """A layer of 4 to 6 channels in float64 and eval mode, in taps unless told."""
    torch.manual_seed(0)
    return cls(4, 6, **layout, config=GeoPosConfig(**options)).double().eval()


def image(axes: int, size=SIZE) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 4, *size[:axes], dtype=torch.float64)
