"""The multilinear term, written apart from the package and one output pixel at a time: the layers' reference."""

import itertools
import math

import torch
from torch import nn


def exponents(axes: int, encoding: str) -> list[tuple[int, ...]]:
    """Which coordinates each weight multiplies, the last axis first: 1, x, y, xy."""
    every = [tuple(int(bit) for bit in f"{number:0{axes}b}") for number in range(2**axes)]
    return {"product": every, "cartesian": [p for p in every if sum(p) < 2], "constant": every[:1]}[encoding]


def tap_indices(layer, axis: int, pixel: int) -> list[int]:
    """Input indices, possibly outside the input, that all the taps of one output pixel lie at."""
    kernel, stride, dilation = layer.kernel_size[axis], layer.stride[axis], layer.dilation[axis]
    if layer.transposed:  # where each tap would have come from, were there a pixel: fractions of one
        return [(pixel + layer.padding[axis] - tap * dilation) / stride for tap in range(kernel)]
    before = layer.padding if isinstance(layer.padding, str) else layer.padding[axis]
    before = {"valid": 0, "same": dilation * (kernel - 1) // 2}.get(before, before)
    return [pixel * stride + tap * dilation - before for tap in range(kernel)]


def coordinate(position: float, axis: int, size, config) -> float:
    """Of a position in pixels along one axis of an input of `size`."""
    if config.normalization == "pixel":
        return position / config.reference_size
    extent = size[axis] if config.normalization == "unit" else max(size)
    half = (extent - 1) / 2 if extent > 1 else 0.5
    return (position - (size[axis] - 1) / 2) / half


def polynomial_term(layer, size, output_size, shift=None) -> torch.Tensor:
    """The term [out, *output_size] in float64 for an input of `size`; `shift` holds one number an axis."""
    weight, axes = layer.geo_weight.detach().double().tolist(), len(size)
    shift = [0.0] * axes if shift is None else list(shift)
    powers = exponents(axes, layer.geo_config.encoding)
    values = []
    for pixel in itertools.product(*(range(n) for n in output_size)):
        places = [tap_indices(layer, axis, i) for axis, i in enumerate(pixel)]
        means = [sum(place) / len(place) for place in places]
        c = [coordinate(mean, axis, size, layer.geo_config) + shift[axis] for axis, mean in enumerate(means)]
        terms = [math.prod(value for value, p in zip(c, power, strict=True) if p) for power in powers]
        values.append([sum(w * t for w, t in zip(row, terms, strict=True)) for row in weight])
    return torch.tensor(values, dtype=torch.float64).T.reshape(-1, *output_size)


def plain(layer):
    """The layer's convolution without its term."""
    base = next(cls for cls in type(layer).__mro__ if cls.__module__ == nn.Conv2d.__module__)
    names = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    options = {name: getattr(layer, name) for name in names}
    if layer.transposed:
        options["output_padding"] = layer.output_padding
    conv = base(layer.in_channels, layer.out_channels, bias=layer.bias is not None, **options).to(layer.weight.dtype)
    conv.load_state_dict({key: value for key, value in layer.state_dict().items() if key != "geo_weight"})
    return conv


def multilinear_conv(layer, x, shifts=None) -> torch.Tensor:
    """The convolution and its term, for x [B, C, *size] and shifts [B, axes]."""
    output = plain(layer)(x)
    rows = [None] * len(x) if shifts is None else shifts.tolist()
    terms = [polynomial_term(layer, tuple(x.shape[2:]), tuple(output.shape[2:]), row) for row in rows]
    return output + torch.stack(terms).to(output.dtype)
