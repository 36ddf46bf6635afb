"""The usual way of writing CoordConv and GeoConv computes what the package computes."""

from functools import partial

import pytest
import torch
from experiments.baselines.concatenation import ConcatenatingConv
from torch import nn

from geopos_diffusers import GeoConvConfig, apply_geoconv


@pytest.mark.parametrize(
    "build", [partial(nn.Conv2d, 3, 4, 3, stride=2, padding=1), partial(nn.ConvTranspose2d, 3, 4, 4, 2, 1)]
)
@pytest.mark.parametrize(("encoding", "channels"), [("product", 1), ("cartesian", 2)])
@pytest.mark.parametrize("training", [False, True])
def test_equals_the_patched_layer(build, encoding, channels, training):
    torch.manual_seed(0)
    layer = build()
    config = GeoConvConfig(encoding=encoding, basis="taps", shift_range=0.25)
    written_out = ConcatenatingConv(layer, config.geopos()).train(training)
    patched = nn.Sequential(layer)
    apply_geoconv(patched, config)
    geometry = torch.randn(4, channels, *layer.kernel_size)
    with torch.no_grad():
        layer.geo_weight.copy_(geometry)
        inputs = 0 if layer.transposed else 1
        own = geometry.transpose(0, 1) if layer.transposed else geometry
        written_out.conv.weight.narrow(inputs, 3, channels).copy_(own)
    images = torch.randn(2, 3, 8, 8)
    torch.manual_seed(1)
    expected = patched.train(training)(images)
    torch.manual_seed(1)
    torch.testing.assert_close(written_out(images), expected, rtol=1e-5, atol=1e-5)
