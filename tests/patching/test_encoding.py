"""The geometry channel against hand-computed values."""

import pytest
import torch

from geopos_diffusers.patching.config import GeoPosConfig
from geopos_diffusers.patching.encoding import axis_coordinates, draw_shift, geopos_channels


def coordinates(length: int, longest: int, **options) -> list[float]:
    return axis_coordinates(torch.arange(length).double(), length, longest, GeoPosConfig(**options)).tolist()


class TestNormalization:
    def test_unit_ends_at_one_on_every_axis(self):
        assert coordinates(5, 9) == [-1.0, -0.5, 0.0, 0.5, 1.0]

    def test_aspect_has_one_scale_for_all_axes(self):
        assert coordinates(5, 9, normalization="aspect") == [-0.5, -0.25, 0.0, 0.25, 0.5]

    def test_pixel_counts_in_reference_sizes(self):
        assert coordinates(3, 9, normalization="pixel", reference_size=4) == [0.0, 0.25, 0.5]

    @pytest.mark.parametrize("normalization", ["unit", "aspect"])
    def test_one_pixel_lies_at_the_centre(self, normalization):
        assert coordinates(1, 1, normalization=normalization) == [0.0]

    def test_unit_goes_on_past_the_edge(self):
        beyond = axis_coordinates(torch.tensor([-1.0, 5.0]), 5, 5, GeoPosConfig())
        assert beyond.tolist() == [-1.5, 1.5]


class TestEncoding:
    y, x = [-1.0, 0.0, 1.0], [-1.0, 1.0]

    @pytest.mark.parametrize(
        ("encoding", "expected"),
        [
            ("product", [[[1.0, -1.0], [0.0, 0.0], [-1.0, 1.0]]]),
            ("sum", [[[-2.0, 0.0], [-1.0, 1.0], [0.0, 2.0]]]),
            ("squares", [[[2.0, 2.0], [1.0, 1.0], [2.0, 2.0]]]),
            ("cartesian", [[[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]], [[-1.0, 1.0]] * 3]),
        ],
    )
    def test_two_axes(self, encoding, expected):
        assert geopos_channels((3, 2), GeoPosConfig(encoding=encoding))[0].tolist() == expected

    def test_radius_is_the_last_channel(self):
        channels = geopos_channels((3, 2), GeoPosConfig(encoding="cartesian_radius"))
        assert channels.shape == (1, 3, 3, 2)
        torch.testing.assert_close(channels[:, 2], channels[:, :2].norm(dim=1))

    @pytest.mark.parametrize("encoding", ["product", "squares", "sum", "cartesian", "cartesian_radius"])
    @pytest.mark.parametrize("axes", [1, 2, 3])
    def test_number_of_channels(self, encoding, axes):
        config = GeoPosConfig(encoding=encoding)
        assert geopos_channels((4, 3, 2)[:axes], config).shape[1] == config.channels(axes)

    def test_shift_moves_the_coordinates_before_they_are_combined(self):
        shift = torch.tensor([[0.5, 0.0], [0.0, -1.0]])
        channels = geopos_channels((3, 2), GeoPosConfig(), shift)
        assert channels[0, 0].tolist() == [[0.5, -0.5], [-0.5, 0.5], [-1.5, 1.5]]
        assert channels[1, 0].tolist() == [[2.0, 0.0], [0.0, 0.0], [-2.0, 0.0]]


class TestShift:
    def test_uniform_stays_within_its_range(self):
        torch.manual_seed(0)
        shifts = draw_shift(GeoPosConfig(shift_range=0.25, shift_unit="sample"), 2, 4000, torch.zeros(()))
        assert shifts.shape == (4000, 2)
        assert shifts.abs().max() <= 0.25
        assert shifts.std().item() == pytest.approx(0.25 / 3**0.5, rel=0.05)

    def test_normal_has_the_range_as_standard_deviation(self):
        torch.manual_seed(0)
        config = GeoPosConfig(shift_range=0.25, shift_unit="sample", shift_distribution="normal")
        assert draw_shift(config, 2, 4000, torch.zeros(())).std().item() == pytest.approx(0.25, rel=0.05)

    def test_one_shift_for_the_batch(self):
        assert draw_shift(GeoPosConfig(), 3, 16, torch.zeros(())).shape == (1, 3)
