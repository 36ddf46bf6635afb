"""GeoConv by plain concatenation, written apart from the package: the reference that the layers are checked against."""

import itertools

import torch
import torch.nn.functional as F

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def channels_at(indices, size, config, shift):
    """Channels [C, *len(indices)] at per-axis pixel indices, one Python number at a time."""
    longest = max(size)

    def coordinate(index, axis):
        if config.normalization == "pixel":
            return index / config.reference_size + shift[axis]
        extent = size[axis] if config.normalization == "unit" else longest
        half = (extent - 1) / 2 if extent > 1 else 0.5
        return (index - (size[axis] - 1) / 2) / half + shift[axis]

    values = []
    for point in itertools.product(*indices):
        c = [coordinate(index, axis) for axis, index in enumerate(point)]
        product = 1.0
        for value in c:
            product *= value
        values.append(
            {
                "product": [product],
                "sum": [sum(c)],
                "squares": [sum(value**2 for value in c)],
                "cartesian": c,
                "cartesian_radius": [*c, sum(value**2 for value in c) ** 0.5],
            }[config.encoding]
        )
    shape = [len(index) for index in indices]
    return torch.tensor(values, dtype=torch.float64).T.reshape(-1, *shape)


def concatenated_conv(layer, x, shift=None):
    """conv(concat[x, g]) in float64 with the layer's weights; `border="zeros"`. x: [B, C, *size], shift: [B, axes]."""
    size = tuple(x.shape[2:])
    shifts = [[0.0] * len(size)] * len(x) if shift is None else shift.tolist()
    g = torch.stack([channels_at([range(n) for n in size], size, layer.geo_config, s) for s in shifts])
    weight, groups = layer.weight, layer.groups
    if groups > 1:  # a grouped convolution written as a full one with zeros off its blocks
        weight = torch.zeros(layer.out_channels, layer.in_channels, *layer.kernel_size, dtype=x.dtype)
        rows, columns = layer.out_channels // groups, layer.in_channels // groups
        for i in range(groups):
            block = slice(i * rows, (i + 1) * rows)
            weight[block, i * columns : (i + 1) * columns] = layer.weight[block]
    both = torch.cat([x, g], dim=1)
    weight = torch.cat([weight, layer.geo_weight], dim=1)
    padding = layer.padding
    if layer.padding_mode != "zeros":
        both = F.pad(both, [p for n in reversed(layer.padding) for p in (n, n)], mode=layer.padding_mode)
        padding = 0
    return CONV[len(size)](both, weight, layer.bias, layer.stride, padding, layer.dilation)


def extrapolated_conv(layer, x):
    """conv(concat[pad(x), g]) where g's coordinates go on over the padding; `border="extrapolate"`, integer padding."""
    size, pads = tuple(x.shape[2:]), layer.padding
    indices = [range(-p, n + p) for n, p in zip(size, pads, strict=True)]
    g = channels_at(indices, size, layer.geo_config, [0.0] * len(size))[None].expand(len(x), *[-1] * (len(size) + 1))
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(x, [p for n in reversed(pads) for p in (n, n)], mode=mode)
    weight = torch.cat([layer.weight, layer.geo_weight], dim=1)
    return CONV[len(size)](torch.cat([padded, g], 1), weight, layer.bias, layer.stride, 0, layer.dilation)


def concatenated_conv_transpose(layer, x):
    """conv_transpose(concat[x, g]); groups 1."""
    size = tuple(x.shape[2:])
    g = channels_at([range(n) for n in size], size, layer.geo_config, [0.0] * len(size))
    both = torch.cat([x, g[None].expand(len(x), *[-1] * (len(size) + 1))], dim=1)
    weight = torch.cat([layer.weight, layer.geo_weight.transpose(0, 1)], dim=0)
    return CONV_TRANSPOSE[len(size)](
        both, weight, layer.bias, layer.stride, layer.padding, layer.output_padding, 1, layer.dilation
    )
