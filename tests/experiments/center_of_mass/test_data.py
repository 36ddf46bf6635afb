import pytest
import torch
from experiments.center_of_mass.data import DENSITIES, REGIONS, center_of_mass, draw_points, region_mask

from geopos_diffusers.errors import ConfigError


def image(*points, size=5):
    """Points (row, column, mass)."""
    pixels = torch.zeros(1, 1, size, size)
    for row, column, mass in points:
        pixels[0, 0, row, column] = mass
    return pixels


@pytest.mark.parametrize(
    ("points", "x", "y"),
    [
        ([(0, 0, 1.0)], -1.0, -1.0),
        ([(4, 0, 1.0)], -1.0, 1.0),  # the last row, the first column
        ([(2, 2, 1.0)], 0.0, 0.0),
        ([(1, 3, 1.0), (1, 4, 1.0)], 0.75, -0.5),
        ([(0, 0, 1.0), (4, 4, 3.0)], 0.5, 0.5),
        ([(0, 4, 1.0), (4, 4, 1.0), (2, 1, 2.0)], 0.25, 0.0),
    ],
)
def test_center_of_mass_by_hand(points, x, y):
    assert center_of_mass(image(*points))[0].tolist() == pytest.approx([x, y])


def test_center_of_mass_of_nothing_is_undefined():
    assert center_of_mass(image()).isnan().all()


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("region", REGIONS)
def test_points_lie_in_their_region_and_targets_are_their_centers(density, region):
    images, targets = draw_points(300, 16, density, region, seed=0)
    assert images.shape == (300, 1, 16, 16)
    assert images.dtype == targets.dtype == torch.float32
    assert set(images.unique().tolist()) == {0.0, 1.0}
    assert images.sum((1, 2, 3)).min() >= 1
    assert not images[:, 0, ~region_mask(region, 16)].any()
    rows, columns = images[7, 0].nonzero().float().mean(0).tolist()
    assert targets[7].tolist() == pytest.approx([columns / 7.5 - 1, rows / 7.5 - 1], abs=1e-5)


def test_regions_share_no_pixel_and_fill_the_image():
    seen, unseen = region_mask("three_quarters", 10), region_mask("fourth_quarter", 10)
    assert not (seen & unseen).any()
    assert (seen | unseen).all()
    assert unseen.sum() == 25
    assert unseen[5:, 5:].all()


def test_dense_images_have_more_points():
    counts = {name: draw_points(500, 32, name, "everywhere", 1)[0].sum((1, 2, 3)).mean() for name in DENSITIES}
    assert counts["sparse"] < counts["all"] < counts["dense"]


def test_same_seed_same_images():
    first, second, other = (draw_points(20, 16, "all", "everywhere", seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((4, 16, "thick", "everywhere"), "sparse, dense, all"),
        ((4, 16, "all", "nowhere"), "three_quarters"),
        ((4, 4, "all", "everywhere"), "at least 5"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        draw_points(*options, seed=0)
