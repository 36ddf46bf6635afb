"""What the geometry weights meet, one axis at a time: the coordinates under the taps, or the output pixel's own.

A convolution reads, for output pixel i and tap t, the input pixel i * stride + t * dilation - padding. Along one axis
that is an [L_out, k] table of indices; the channel's value there needs no convolution to find. In the multilinear
basis the table is [L_out, 2]: 1 and the coordinate of the output pixel.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn

from .config import GeoPosConfig
from .encoding import axis_coordinates, encode, separable_terms, shifted_coordinates
from .frames import FrameMap
from .model_call import makes_plain_tensors


@dataclass(frozen=True)
class AxisTaps:
    """What a layer's weights meet along one axis, a table [L_out, k] before the shift, and where the shift adds to it.

    taps: the coordinate under each tap; mask 1, and both 0 for padding. multilinear: the powers 1 and c of the output
    pixel's coordinate c; mask 0 and 1.
    """

    coordinates: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Taps:
    """The taps of all n axes.

    axes: tables [L_d, k_d]. spread: the same with axes of one element between, [1 .. L_d .. 1, 1 .. k_d .. 1], so that
    products over d are tables of every (output pixel, tap). places: coordinates of the output pixels, [L_d] each.
    """

    axes: list[AxisTaps]
    spread: list[AxisTaps]
    places: list[Tensor]


@dataclass(frozen=True)
class Axis:
    """One axis of what a convolution is given and gives.

    Attributes:
        index: 0 is the first spatial axis.
        input_size, output_size: pixels along this axis. longest: pixels of the input's longest axis.
        start: index of the first pixel that the layer is given, where that is one tile of an input of `input_size`.
    """

    index: int
    input_size: int
    output_size: int
    longest: int
    start: int = 0


def axis_taps(conv: nn.Module, axis: Axis, config: GeoPosConfig, like: Tensor) -> AxisTaps:
    """Taps of a torch convolution module (nn.Conv1d/2d/3d, nn.ConvTranspose1d/2d/3d); `like` gives device and dtype."""
    positions, valid = _positions(conv, axis.index, axis.output_size, like)
    positions = positions + axis.start
    if config.border == "zeros":
        if conv.padding_mode == "zeros" or conv.transposed:
            valid = valid & (positions >= 0) & (positions < axis.input_size)
        else:
            positions = _padded_positions(positions, axis.input_size, conv.padding_mode)
    mask = valid.to(like.dtype)
    coordinates = axis_coordinates(positions.to(like.dtype), axis.input_size, axis.longest, config)
    return AxisTaps(coordinates * mask, mask)


def axis_powers(conv: nn.Module, axis: Axis, config: GeoPosConfig, like: Tensor) -> AxisTaps:
    """Powers 0 and 1 of the output pixels' coordinates along one axis; arguments as of `axis_taps`.

    An output pixel lies where the mean of its taps does, in the frame of the input: between two pixels where the kernel
    is even, past the edge where it is padded.
    """
    out = torch.arange(axis.output_size, device=like.device, dtype=like.dtype)
    reach = (conv.kernel_size[axis.index] - 1) / 2 * conv.dilation[axis.index]
    if conv.transposed:
        positions = (out + (conv.padding[axis.index] - reach)) / conv.stride[axis.index]
    else:
        positions = out * conv.stride[axis.index] + (reach - _leading_padding(conv, axis.index))
    coordinates = axis_coordinates(positions + axis.start, axis.input_size, axis.longest, config)
    ones = torch.ones_like(coordinates)
    return AxisTaps(torch.stack([ones, coordinates], dim=1), torch.stack([ones - 1, ones], dim=1))


def _positions(conv: nn.Module, axis: int, output_size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Input index under every (output pixel, tap), and whether the tap reads the input there at all."""
    kernel, stride, dilation = conv.kernel_size[axis], conv.stride[axis], conv.dilation[axis]
    out = torch.arange(output_size, device=like.device)[:, None]
    reach = torch.arange(kernel, device=like.device)[None] * dilation
    if conv.transposed:
        scattered = out + conv.padding[axis] - reach
        return torch.div(scattered, stride, rounding_mode="floor"), scattered % stride == 0
    positions = out * stride + reach - _leading_padding(conv, axis)
    return positions, torch.ones_like(positions, dtype=torch.bool)


def _leading_padding(conv: nn.Module, axis: int) -> int:
    if conv.padding == "valid":
        return 0
    if conv.padding == "same":
        # torch puts the odd pixel of "same" padding at the end.
        return conv.dilation[axis] * (conv.kernel_size[axis] - 1) // 2
    return conv.padding[axis]


def _padded_positions(positions: Tensor, size: int, mode: str) -> Tensor:
    """Index of the input pixel that torch's padding copies to each position."""
    if mode == "reflect":
        positions = positions.abs()
        return (size - 1) - ((size - 1) - positions).abs()
    if mode == "replicate":
        return positions.clamp(0, size - 1)
    return positions % size


class TapTables:
    """Shift-free taps, kept by geometry: layers of one resolution share them, and inference makes them only once."""

    def __init__(self, capacity: int = 128) -> None:
        self.capacity = capacity
        self._tables: OrderedDict[tuple, Taps] = OrderedDict()

    def get(
        self,
        conv: nn.Module,
        input_size: tuple[int, ...],
        output_size: tuple[int, ...],
        config: GeoPosConfig,
        like: Tensor,
        start: tuple[int, ...] | None = None,
    ) -> Taps:
        """Taps of all axes; arguments as of `axis_taps`, one number an axis, `start` None where the input is whole."""
        if not makes_plain_tensors():
            return self._build(conv, input_size, output_size, config, like, start)
        layout = (conv.transposed, conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.padding_mode)
        coordinates = (config.basis, config.normalization, config.reference_size, config.border)
        key = (layout, coordinates, input_size, output_size, start, like.dtype, like.device)
        if (tables := self._tables.get(key)) is not None:
            return tables
        # A table first made in inference mode could not be saved for a later backward pass.
        with torch.inference_mode(False), torch.no_grad():
            tables = self._build(conv, input_size, output_size, config, like, start)
        self._tables[key] = tables
        if len(self._tables) > self.capacity:
            self._tables.popitem(last=False)
        return tables

    @staticmethod
    def _build(conv, input_size, output_size, config, like, start) -> Taps:
        longest, count = max(input_size), len(input_size)
        sizes = zip(range(count), input_size, output_size, start or (0,) * count, strict=True)
        layout = [Axis(d, size, out, longest, first) for d, size, out, first in sizes]
        powers = [axis_powers(conv, axis, config, like) for axis in layout]
        axes = powers if config.basis == "multilinear" else [axis_taps(conv, axis, config, like) for axis in layout]
        spread = []
        for d, axis in enumerate(axes):
            shape = [1] * (2 * count)
            shape[d], shape[count + d] = axis.mask.shape
            spread.append(AxisTaps(axis.coordinates.view(shape), axis.mask.view(shape)))
        return Taps(axes, spread, [axis.coordinates[:, 1] for axis in powers])


def separable_factors(
    taps: Taps, shift: Tensor | None, config: GeoPosConfig, frame: FrameMap | None = None
) -> list[tuple[int, list[Tensor]]]:
    """Terms (channel, one [S, L_out, k] factor an axis) whose products sum to the channel under the taps.

    Args:
        shift: [S, axes] as of `separable_terms`. frame: whose offset is part of the shift; None for no frames.
    """
    coordinates, masks = [axis.coordinates for axis in taps.axes], [axis.mask for axis in taps.axes]
    stretch = None if frame is None else frame.stretch
    terms = separable_terms(coordinates, masks, shift, _combined(config), stretch, config.frame_limit)
    if frame is None or not config.frame_window:
        return terms
    windows = [window.unsqueeze(2) for window in frame.windows(taps.places)]
    return [
        (channel, [factor * window for factor, window in zip(factors, windows, strict=True)])
        for channel, factors in terms
    ]


def _combined(config: GeoPosConfig) -> str:
    """How the axes' factors combine. The grid of multilinear weights holds a weight for every product of powers."""
    return "product" if config.basis == "multilinear" else config.encoding


def dense_taps(taps: Taps, shift: Tensor | None, config: GeoPosConfig, frame: FrameMap | None = None) -> Tensor:
    """The channels under every (output pixel, tap): [S, L_1 .. L_n, C k_1 .. k_n], each product flattened to one axis.

    Arguments as of `separable_factors`. In a training step the number of calls decides: a small one costs 5 to 10 us
    beside a convolution on a CPU.
    """
    coordinates, masks = [axis.coordinates for axis in taps.spread], [axis.mask for axis in taps.spread]
    stretch = None if frame is None else frame.stretch
    pixels = math.prod(len(axis.mask) for axis in taps.axes)
    if config.encoding == "cartesian_radius":
        shifted = shifted_coordinates(coordinates, masks, shift, stretch, config.frame_limit)
        channels = encode(shifted, config.encoding) * reduce(torch.mul, masks)  # [S, C, *L, *k]
        table = channels.flatten(2).unflatten(2, (pixels, -1)).transpose(1, 2).flatten(2)
    else:
        own = {}
        terms = separable_terms(coordinates, masks, shift, _combined(config), stretch, config.frame_limit)
        for channel, factors in terms:
            term = reduce(torch.mul, factors)
            term = term.view(len(term), pixels, math.prod(term.shape[1 + len(masks) :]))  # no -1: a batch may be empty
            own[channel] = own[channel] + term if channel in own else term
        table = own[0] if len(own) == 1 else torch.cat([*own.values()], dim=2)
    if frame is None or not config.frame_window:
        return table
    windows = frame.windows(taps.places)
    whole = reduce(lambda rows, columns: (rows.unsqueeze(2) * columns.unsqueeze(1)).flatten(1), windows)
    return table * whole.unsqueeze(2)
