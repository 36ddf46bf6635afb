"""Images of points with their centre of mass: the data of the paper's first experiment (claim C1).

The digest of the paper says "synthetic images of points with varying density". How points are spread is this project's
own reading: each image has a square of its own and a density of its own, and every pixel of the square is a point with
that probability.
"""

import math

import torch
from torch import Tensor

from geopos_diffusers.errors import ConfigError

# Shares of a square's pixels that are points, lowest and highest; each image's is drawn log-uniformly between them.
DENSITIES = {"sparse": (0.01, 0.05), "dense": (0.2, 0.8), "all": (0.01, 0.8)}
REGIONS = ("everywhere", "three_quarters", "fourth_quarter")
SMALLEST_SQUARE = 5  # pixels


def region_mask(region: str, size: int) -> Tensor:
    """Where points may lie: [S, S] bool.

    "fourth_quarter" is the lower right quarter of the image, "three_quarters" all the rest.

    Raises:
        ConfigError: an unknown region.
    """
    if region not in REGIONS:
        raise ConfigError(f"region must be one of {', '.join(REGIONS)}; got {region!r}")
    mask = torch.full((size, size), region != "fourth_quarter")
    mask[size // 2 :, size // 2 :] = region != "three_quarters"
    return mask


def draw_points(count: int, size: int, density: str, region: str, seed: int) -> tuple[Tensor, Tensor]:
    """Images [N, 1, S, S] of 0 and 1 and their centres of mass [N, 2] as `center_of_mass` gives them.

    Args:
        density: a key of DENSITIES. region: one of REGIONS; the whole square may be outside it but for its centre, and
            no point is.
        seed: the same seed gives the same images.

    Raises:
        ConfigError: an unknown density or region, or fewer than 5 pixels a side.
    """
    if density not in DENSITIES:
        raise ConfigError(f"density must be one of {', '.join(DENSITIES)}; got {density!r}")
    if size < SMALLEST_SQUARE:
        raise ConfigError(f"size must be at least {SMALLEST_SQUARE}; got {size}")
    mask, generator = region_mask(region, size), torch.Generator().manual_seed(seed)
    places = mask.nonzero()
    centers = places[torch.randint(len(places), (count,), generator=generator)]
    sides = torch.randint(SMALLEST_SQUARE, size + 1, (count, 1), generator=generator)
    distance = (torch.arange(size) - centers[:, :, None]).abs() * 2  # [N, 2, S], of rows and of columns
    within = distance < sides[:, :, None]
    allowed = within[:, 0, :, None] & within[:, 1, None, :] & mask
    low, high = map(math.log, DENSITIES[density])
    shares = (torch.rand(count, 1, 1, generator=generator) * (high - low) + low).exp()
    chances = torch.rand(count, size, size, generator=generator).masked_fill(~allowed, 2.0)
    # The luckiest pixel is always a point, so that no image is empty.
    lit = allowed & ((chances < shares) | (chances == chances.amin((1, 2), keepdim=True)))
    images = lit[:, None].float()
    return images, center_of_mass(images)


def center_of_mass(images: Tensor) -> Tensor:
    """Mean position of the mass of non-negative images [N, 1, S, S]: [N, 2], x then y.

    -1 is the centre of the first column or row and 1 that of the last. nan for an image without mass.
    """
    axis = torch.linspace(-1, 1, images.shape[-1], dtype=images.dtype)
    mass = images.sum((1, 2, 3))
    return torch.stack([(images.sum((1, 2)) @ axis) / mass, (images.sum((1, 3)) @ axis) / mass], dim=1)
