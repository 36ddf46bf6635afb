"""The proposition of docs/theory.md: one channel (product or squares) contains CoordConv's responses in the interior.

For random CoordConv weights, geometry weights are solved for so that both layers' interior responses to their
coordinate channels agree; where the proposition says that they cannot, the best fit stays far off.
"""

import pytest
import torch

from geopos_diffusers import GeoConv1d, GeoConv2d, GeoConv3d, GeoPosConfig

LAYERS = {1: GeoConv1d, 2: GeoConv2d, 3: GeoConv3d}
SIZE = (9, 8, 7)


def responses(axes: int, kernel: int, encoding: str, filters: torch.Tensor) -> torch.Tensor:
    """Interior responses [filters, pixels] of the geometry term alone, in float64."""
    layer = LAYERS[axes](1, len(filters), kernel, bias=False, config=GeoPosConfig(encoding=encoding)).double().eval()
    with torch.no_grad():
        layer.weight.zero_()
        layer.geo_weight.copy_(filters.view_as(layer.geo_weight))
        return layer(torch.zeros(1, 1, *SIZE[:axes], dtype=torch.float64))[0].flatten(1)


def misfit(axes: int, kernel: int, encoding: str) -> float:
    """Relative distance of random CoordConv responses from the best that the encoding (with a bias) can produce."""
    torch.manual_seed(0)
    taps = kernel**axes
    coordconv = responses(axes, kernel, "cartesian", torch.randn(5, axes * taps, dtype=torch.float64))
    basis = responses(axes, kernel, encoding, torch.eye(taps, dtype=torch.float64))
    basis = torch.cat([basis, torch.ones_like(basis[:1])]).T
    solution = torch.linalg.lstsq(basis, coordconv.T, driver="gelsd").solution
    return ((basis @ solution - coordconv.T).norm() / coordconv.norm()).item()


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("encoding", ["product", "squares"])
def test_one_channel_contains_coordconv(axes, kernel, encoding):
    assert misfit(axes, kernel, encoding) < 1e-9


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("encoding", ["product", "squares", "sum"])
def test_one_tap_is_too_small(axes, encoding):
    assert misfit(axes, 1, encoding) > 0.3


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_the_sum_has_one_slope_whatever_the_kernel(axes, kernel):
    assert misfit(axes, kernel, "sum") > 0.3


def test_differences_cancel_the_shift_of_their_axis():
    """A difference along y of (y + s_y)(x + s_x) holds x + s_x and no s_y."""
    layer = GeoConv2d(1, 1, (2, 1), bias=False, config=GeoPosConfig()).double().train()
    with torch.no_grad():
        layer.weight.zero_()
        layer.geo_weight.copy_(torch.tensor([-1.0, 1.0], dtype=torch.float64).view(1, 1, 2, 1))
        outputs = torch.stack([layer(torch.zeros(1, 1, 6, 5, dtype=torch.float64))[0, 0] for _ in range(8)])
    step = 2 / 5  # between neighbouring rows of six
    slopes = outputs.diff(dim=2) / step
    torch.testing.assert_close(slopes, torch.full_like(slopes, 2 / 4), rtol=0, atol=1e-12)
    torch.testing.assert_close(outputs, outputs[:, :1].expand_as(outputs), rtol=0, atol=1e-12)
    assert outputs.std(dim=0).min() > 0.01
