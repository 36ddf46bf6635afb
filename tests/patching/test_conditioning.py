"""The multilinear basis in docs/theory.md: its span, the conditioning of taps, and that a GeoConv contains biases.

The map from taps to coefficients is read off real layers: the interior responses of one filter a tap, expressed in the
products of coordinates by least squares.
"""

import itertools
import math

import pytest
import torch
from torch import nn

from geopos_diffusers import GeoConv1d, GeoConv2d, GeoConv3d, GeoPosConfig
from geopos_diffusers.patching.encoding import monomials

LAYERS = {1: GeoConv1d, 2: GeoConv2d, 3: GeoConv3d}
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def unit_responses(axes: int, size: int, kernel: int, dilation: int = 1, **config) -> torch.Tensor:
    """Interior responses [weights, pixels] of a layer whose filter i has geometry weight i at 1 and all others at 0."""
    terms = math.prod(GeoPosConfig(**config).weight_shape([kernel] * axes))
    layer = LAYERS[axes](1, terms, kernel, dilation=dilation, bias=False, config=GeoPosConfig(**config))
    layer = layer.double().eval().requires_grad_(False)
    layer.weight.zero_()
    layer.geo_weight.copy_(torch.eye(terms, dtype=torch.float64).view_as(layer.geo_weight))
    return layer(torch.zeros(1, 1, *[size] * axes, dtype=torch.float64))[0].flatten(1)


def interior_monomials(axes: int, size: int, kernel: int, dilation: int = 1) -> torch.Tensor:
    """All products of distinct coordinates at the interior pixels [2^n, pixels]; the last axis varies fastest."""
    rim = dilation * (kernel - 1) / 2
    count = size - dilation * (kernel - 1)
    along = [2 * (i + rim) / (size - 1) - 1 for i in range(count)]
    points = list(itertools.product(along, repeat=axes))
    rows = itertools.product((0, 1), repeat=axes)
    return torch.tensor(
        [[math.prod(c for c, p in zip(point, powers, strict=True) if p) for point in points] for powers in rows],
        dtype=torch.float64,
    )


def tap_map(axes: int, size: int, kernel: int, dilation: int = 1) -> torch.Tensor:
    """Coefficients of each tap of the product channel [2^n, k^n], measured; the fit must be exact."""
    responses = unit_responses(axes, size, kernel, dilation)
    basis = interior_monomials(axes, size, kernel, dilation)
    solution = torch.linalg.lstsq(basis.T, responses.T, driver="gelsd").solution
    assert (basis.T @ solution - responses.T).abs().max() < 1e-12
    return solution


def singular_values_by_power(size: int, kernel: int, dilation: int) -> tuple[float, float]:
    """The theory's singular values along one axis, for the constant and for the coordinate."""
    moment = dilation**2 * kernel * (kernel**2 - 1) / 12
    return 2 / (size - 1) * math.sqrt(moment), math.sqrt(kernel)


CASES = [
    (axes, size, kernel, dilation)
    for axes, sizes in ((1, (9, 16, 64)), (2, (9, 16, 64)), (3, (9, 12)))
    for size in sizes
    for kernel, dilation in ((2, 1), (3, 1), (3, 2), (4, 1), (5, 1))
]


class TestConditioning:
    @pytest.mark.parametrize(("axes", "size", "kernel", "dilation"), CASES)
    def test_singular_values_are_products_over_the_axes(self, axes, size, kernel, dilation):
        measured = tap_map(axes, size, kernel, dilation)
        along = singular_values_by_power(size, kernel, dilation)
        expected = [math.prod(along[power] for power in powers) for powers in itertools.product((0, 1), repeat=axes)]
        # Its rows are orthogonal: each singular direction is one coefficient.
        gram = torch.diag(torch.tensor(expected, dtype=torch.float64).square())
        torch.testing.assert_close(measured @ measured.T, gram, rtol=1e-7, atol=1e-9)

    @pytest.mark.parametrize(
        ("axes", "size", "expected"), [(1, 16, 9.186), (1, 64, 38.58), (2, 16, 84.4), (2, 64, 1488.4), (3, 16, 775.0)]
    )
    def test_condition_number(self, axes, size, expected):
        """The numbers of the page, for three taps: ((L - 1) / 2 * sqrt(12 / (k^2 - 1)))^n."""
        assert torch.linalg.cond(tap_map(axes, size, 3)).item() == pytest.approx(expected, rel=1e-3)
        assert ((size - 1) / 2 * math.sqrt(12 / 8)) ** axes == pytest.approx(expected, rel=1e-3)

    @pytest.mark.parametrize(("axes", "size"), [(1, 16), (2, 16), (2, 64)])
    def test_as_functions_over_the_image_too(self, axes, size):
        """Measured by the responses themselves: the page's second column of numbers, over all pixels of the image."""
        taps = unit_responses(axes, size + 2, 3)  # size pixels of the interior, spaced and centred as those of an image
        coefficients = unit_responses(axes, size + 2, 3, basis="multilinear")
        spread = math.sqrt((size + 1) * (size - 1) / 3) / (size + 1)  # root mean square of the interior's coordinate
        bound = (size + 1) / 2 * math.sqrt(12 / 8)
        values = torch.linalg.svdvals(taps)[: 2**axes]
        assert (values[0] / values[-1]).item() == pytest.approx((bound * spread) ** axes, rel=1e-6)
        assert torch.linalg.cond(coefficients.T).item() == pytest.approx(spread**-axes, rel=1e-6)

    def test_gradient_descent_moves_coefficients_by_the_squares(self):
        """One step down a loss that asks for every coefficient alike."""
        size, rate = 16, 0.1
        measured = tap_map(2, size, 3)
        taps = torch.zeros(9, dtype=torch.float64, requires_grad=True)
        (-(measured @ taps).sum()).backward()
        moved = measured @ (-rate * taps.grad)
        h = 2 / (size - 1)
        expected = torch.tensor([(2 * h**2) ** 2, 2 * h**2 * 3, 3 * 2 * h**2, 9.0], dtype=torch.float64)
        torch.testing.assert_close(moved, rate * expected, rtol=1e-6, atol=1e-12)

    @pytest.mark.parametrize("axes", [1, 2, 3])
    def test_what_taps_have_learnt_shrinks_as_the_image_grows(self, axes):
        small, large = 9, 17
        ratio = (small - 1) / (large - 1)
        before, after = tap_map(axes, small, 3), tap_map(axes, large, 3)
        for row, powers in enumerate(itertools.product((0, 1), repeat=axes)):
            factor = ratio ** (axes - sum(powers))
            torch.testing.assert_close(after[row], before[row] * factor, rtol=0, atol=1e-9)


class TestSpan:
    @pytest.mark.parametrize(("axes", "size", "kernel", "dilation"), [case for case in CASES if case[1] < 64])
    def test_taps_reach_the_multilinear_polynomials_and_no_others(self, axes, size, kernel, dilation):
        taps = unit_responses(axes, size, kernel, dilation)
        coefficients = unit_responses(axes, size, kernel, dilation, basis="multilinear")
        assert len(coefficients) == 2**axes
        assert torch.linalg.matrix_rank(taps) == torch.linalg.matrix_rank(coefficients) == 2**axes
        assert torch.linalg.matrix_rank(torch.cat([taps, coefficients])) == 2**axes

    @pytest.mark.parametrize("axes", [1, 2, 3])
    def test_one_tap_reaches_one_function_and_coefficients_all(self, axes):
        assert torch.linalg.matrix_rank(unit_responses(axes, 6, 1)) == 1
        assert torch.linalg.matrix_rank(unit_responses(axes, 6, 1, basis="multilinear")) == 2**axes

    @pytest.mark.parametrize("axes", [1, 2, 3])
    @pytest.mark.parametrize("encoding", ["product", "cartesian"])
    def test_coefficients_are_the_monomials_in_their_order(self, axes, encoding):
        responses = unit_responses(axes, 7, 3, encoding=encoding, basis="multilinear")
        every = list(itertools.product((0, 1), repeat=axes))
        rows = [every.index(powers) for powers in monomials(axes, encoding)]
        torch.testing.assert_close(responses, interior_monomials(axes, 7, 3)[rows], rtol=0, atol=1e-12)


class TestContainsBiases:
    @pytest.mark.parametrize("axes", [1, 2, 3])
    @pytest.mark.parametrize("encoding", ["product", "cartesian", "constant"])
    def test_the_constant_is_a_change_of_the_bias_at_every_pixel(self, axes, encoding):
        torch.manual_seed(0)
        config = GeoPosConfig(encoding=encoding, basis="multilinear")
        layer = LAYERS[axes](3, 4, 3, padding=1, config=config).double().train()  # shifts do not move it
        conv = CONVS[axes](3, 4, 3, padding=1).double()
        change, x = torch.randn(4, dtype=torch.float64), torch.randn(2, 3, *[6] * axes, dtype=torch.float64)
        with torch.no_grad():
            conv.weight.copy_(layer.weight)
            conv.bias.copy_(layer.bias + change)
            layer.geo_weight.zero_()
            layer.geo_weight[:, 0] = change
        torch.testing.assert_close(layer(x), conv(x), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("axes", [1, 2, 3])
    def test_their_gradients_are_the_same(self, axes):
        """So both learn alike under one optimiser and rate."""
        layer = LAYERS[axes](3, 4, 3, config=GeoPosConfig(basis="multilinear")).double()
        layer(torch.randn(2, 3, *[6] * axes, dtype=torch.float64)).square().sum().backward()
        torch.testing.assert_close(layer.geo_weight.grad[:, 0], layer.bias.grad, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("axes", [1, 2, 3])
    def test_taps_contain_them_on_the_interior_by_differences_along_every_axis(self, axes):
        size, difference = 9, torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64)
        weights = difference
        for _ in range(axes - 1):
            weights = torch.outer(weights, difference).flatten()
        response = weights @ unit_responses(axes, size, 3)
        torch.testing.assert_close(response, torch.full_like(response, (2 / (size - 1)) ** axes), rtol=0, atol=1e-12)
