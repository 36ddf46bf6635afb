"""Where each tap of a convolution's kernel falls: the geometry channel as the kernel sees it, one axis at a time.

A convolution reads, for output pixel i and tap t, the input pixel i * stride + t * dilation - padding. Along one axis
that is an [L_out, k] table of indices; the channel's value there needs no convolution to find.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .config import GeoPosConfig
from .encoding import axis_coordinates, encode, separable_terms


@dataclass(frozen=True)
class AxisTaps:
    """Coordinates [L_out, k] under the taps of one axis, before the shift, and 0/1 masks of the same shape."""

    coordinates: Tensor
    mask: Tensor


def axis_taps(
    conv: nn.Module,
    axis: int,
    input_size: int,
    output_size: int,
    longest: int,
    config: GeoPosConfig,
    like: Tensor,
    start: int = 0,
) -> AxisTaps:
    """Taps of a torch convolution module along one axis.

    Args:
        conv: nn.Conv1d/2d/3d or nn.ConvTranspose1d/2d/3d.
        axis: 0 is the first spatial axis.
        input_size, output_size: pixels along this axis. longest: pixels of the input's longest axis.
        like: gives device and dtype.
        start: index of the first pixel that the layer is given, where that is one tile of an input of `input_size`.
    """
    positions, valid = _positions(conv, axis, output_size, like)
    positions = positions + start
    if config.border == "zeros":
        if conv.padding_mode == "zeros" or conv.transposed:
            valid = valid & (positions >= 0) & (positions < input_size)
        else:
            positions = _padded_positions(positions, input_size, conv.padding_mode)
    mask = valid.to(like.dtype)
    coordinates = axis_coordinates(positions.to(like.dtype), input_size, longest, config)
    return AxisTaps(coordinates, mask)


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
        self._tables: OrderedDict[tuple, list[AxisTaps]] = OrderedDict()

    def get(
        self,
        conv: nn.Module,
        input_size: tuple[int, ...],
        output_size: tuple[int, ...],
        config: GeoPosConfig,
        like: Tensor,
        start: tuple[int, ...] | None = None,
    ) -> list[AxisTaps]:
        """Taps of all axes; arguments as of `axis_taps`, one number an axis, `start` None where the input is whole."""
        if torch.compiler.is_compiling():
            return self._build(conv, input_size, output_size, config, like, start)
        layout = (conv.transposed, conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.padding_mode)
        coordinates = (config.normalization, config.reference_size, config.border)
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
    def _build(conv, input_size, output_size, config, like, start) -> list[AxisTaps]:
        longest = max(input_size)
        sizes = enumerate(zip(input_size, output_size, start or (0,) * len(input_size), strict=True))
        return [axis_taps(conv, axis, i, o, longest, config, like, first) for axis, (i, o, first) in sizes]


def separable_factors(
    tables: list[AxisTaps], shift: Tensor | None, config: GeoPosConfig
) -> list[tuple[int, list[Tensor]]]:
    """Terms (channel, one [S, L_out, k] factor an axis) whose products sum to the channel under the taps."""
    coordinates, masks = [taps.coordinates for taps in tables], [taps.mask for taps in tables]
    return separable_terms(coordinates, masks, shift, config.encoding)


def dense_taps(tables: list[AxisTaps], shift: Tensor | None, config: GeoPosConfig) -> Tensor:
    """The channels under every (output pixel, tap): [S, C, L_1..L_n, k_1..k_n]. For encodings that do not separate."""
    axes = len(tables)
    coordinates, mask = [], 1.0
    for d, taps in enumerate(tables):
        shape = [1] * (2 * axes)
        shape[d], shape[axes + d] = taps.mask.shape
        c = taps.coordinates.view(1, *shape)
        coordinates.append(c if shift is None else c + shift[:, d].view(-1, *[1] * (2 * axes)))
        mask = mask * taps.mask.view(shape)
    return encode(coordinates, config.encoding) * mask
