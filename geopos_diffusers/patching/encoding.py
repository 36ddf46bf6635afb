"""The geometry channel: coordinates, normalisation, shift and encoding. Pure functions in any number of axes.

All encodings but the radius are sums of products of one function an axis. `separable_terms` gives those factors, which
is what lets a layer compute its response to the channel without a convolution (see `layers.py`).
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from .config import GeoPosConfig


def axis_coordinates(positions: Tensor, length: int, longest: int, config: GeoPosConfig) -> Tensor:
    """Coordinates of pixel indices along one axis.

    Args:
        positions: indices, any shape, float; they may lie outside [0, length).
        length: pixels along this axis. longest: pixels along the longest axis.

    Returns:
        Coordinates of the same shape. unit: -1 at index 0 and 1 at index length - 1. aspect: centred, in units of half
        the longest axis. pixel: index / reference_size. An axis of one pixel lies at 0.
    """
    if config.normalization == "pixel":
        return positions / config.reference_size
    extent = length if config.normalization == "unit" else longest
    # Arithmetic in place of linspace: torch.compile would make a new graph for every length.
    return (positions * 2 - (length - 1)) / max(extent - 1, 1)


def draw_shift(
    config: GeoPosConfig, axes: int, samples: int, like: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Random shifts [S, axes]; S is `samples` where each sample has its own shift, else 1.

    Args:
        like: gives device and dtype.
        generator: where to draw from; None for the device's global generator, which gradient checkpointing and
            training checkpoints restore.
    """
    shifts = like.new_empty(samples if config.shift_unit == "sample" else 1, axes)
    if config.shift_distribution == "normal":
        return shifts.normal_(0.0, config.shift_range, generator=generator)
    return shifts.uniform_(-config.shift_range, config.shift_range, generator=generator)


def separable_terms(
    coordinates: Sequence[Tensor],
    masks: Sequence[Tensor],
    shift: Tensor | None,
    encoding: str,
    stretch: Tensor | None = None,
    limit: float | None = None,
) -> list[tuple[int, list[Tensor]]]:
    """The channel as a sum of terms, each a product over axes of one factor an axis.

    Args:
        encoding: product, squares, sum or cartesian. The others as of `shifted_coordinates`.

    Returns:
        Pairs (channel index, factors): factors[d] has shape [S, ..., L_d] (S is 1 without a shift).
    """
    shifted = shifted_coordinates(coordinates, masks, shift, stretch, limit)
    if encoding == "product":
        return [(0, shifted)]
    if encoding == "squares":
        shifted = [c.square() for c in shifted]
    ones = [mask.expand_as(c) for mask, c in zip(masks, shifted, strict=True)]
    axes = range(len(shifted))
    return [(d if encoding == "cartesian" else 0, [shifted[i] if i == d else ones[i] for i in axes]) for d in axes]


def shifted_coordinates(
    coordinates: Sequence[Tensor],
    masks: Sequence[Tensor],
    shift: Tensor | None,
    stretch: Tensor | None = None,
    limit: float | None = None,
) -> list[Tensor]:
    """Coordinates of each axis in the frames and with the shift, [S, ..., L_d] (S is 1 without a shift).

    Args:
        coordinates: one tensor [..., L_d] an axis, before the shift; 0 where the mask is.
        masks: of the same shapes; 0 where the channel is padded with zeros, else 1.
        shift: [S, axes] or None.
        stretch: [S, axes] beside a shift, where coordinates are counted in frames: each grows by `stretch` times
            itself before it is shifted. None for no frames.
        limit: where coordinates in frames are cut off, 1 or more; see `GeoPosConfig.frame_limit`.
    """
    if shift is None:
        return [c.unsqueeze(0) for c in coordinates]
    along = along_axes(coordinates, shift, stretch)
    shifted = [torch.addcmul(c, mask, s) for c, mask, s in zip(coordinates, masks, along, strict=True)]
    if stretch is None or limit is None:
        return shifted
    return [c.clamp(-limit, limit) for c in shifted]


def along_axes(coordinates: Sequence[Tensor], shift: Tensor, stretch: Tensor | None) -> list[Tensor]:
    """What a shift and frames add to the coordinates of each axis: [S, 1 ..], or [S, ..., L_d] with a stretch."""
    ones = [1] * coordinates[0].dim()
    along = [s.view(-1, *ones) for s in shift.unbind(1)]
    if stretch is None:
        return along
    factors = [factor.view(-1, *ones) for factor in stretch.unbind(1)]
    return [torch.addcmul(s, c, factor) for s, c, factor in zip(along, coordinates, factors, strict=True)]


def monomials(axes: int, encoding: str) -> list[tuple[int, ...]]:
    """The terms of the multilinear basis, in the order of the weights: exponents (0 or 1) of each axis's coordinate.

    product, two axes: 1, x, y, xy (x is the last axis), written (0, 0), (0, 1), (1, 0), (1, 1). cartesian: those of
    degree 0 or 1. constant: that of degree 0.
    """
    highest = {"product": axes, "cartesian": 1, "constant": 0}[encoding]
    return [powers for powers in itertools.product((0, 1), repeat=axes) if sum(powers) <= highest]


def geopos_channels(
    size: Sequence[int],
    config: GeoPosConfig,
    shift: Tensor | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The geometry channels over a whole image: what plain concatenation would append to the input.

    Args:
        size: pixels along each of the n axes.
        shift: [S, n], added to the coordinates; None for no shift.

    Returns:
        [S, config.channels(n), *size].
    """
    axes, longest = len(size), max(size)
    coordinates = []
    for d, length in enumerate(size):
        c = axis_coordinates(torch.arange(length, device=device, dtype=dtype), length, longest, config)
        c = c.view(1, *[-1 if i == d else 1 for i in range(axes)])
        coordinates.append(c if shift is None else c + shift[:, d].view(-1, *[1] * axes))
    return encode(coordinates, config.encoding)


def encode(coordinates: Sequence[Tensor], encoding: str) -> Tensor:
    """Combine shifted coordinates that broadcast to [S, ...] into channels [S, C, ...].

    product: prod_d c_d. squares: sum_d c_d^2. sum: sum_d c_d. cartesian: each c_d. cartesian_radius: each c_d and
    sqrt(sum_d c_d^2).
    """
    stacked = torch.stack(torch.broadcast_tensors(*coordinates), dim=1)
    if encoding == "product":
        return stacked.prod(dim=1, keepdim=True)
    if encoding == "squares":
        return stacked.square().sum(dim=1, keepdim=True)
    if encoding == "sum":
        return stacked.sum(dim=1, keepdim=True)
    if encoding == "cartesian_radius":
        return torch.cat([stacked, stacked.square().sum(dim=1, keepdim=True).sqrt()], dim=1)
    return stacked
