"""GeoConv: a convolution with a geometry term.

    conv(concat[x, g]) = conv(x; W) + conv(g; W_g)

so `weight` and `bias` keep their names, shapes and values and the geometry weights are one more parameter,
`geo_weight`. In the basis `taps` it is W_g itself, [out, channels of g, *kernel]. In the basis `multilinear` it is
[out, terms]: the coefficients of the polynomial in the output pixel's coordinates that conv(g; W_g) amounts to away
from the border. Either way the term is a sum of products of one function an axis, hence a product of thin matrices,
[.., k] times [k, ..], which is added to the convolution's output in the one pass that adds it (baddbmm).
"""

import math
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from .config import GeoPosConfig
from .encoding import draw_shift
from .taps import TapTables, dense_taps, separable_factors
from .tiling import CurrentTile

_TABLES = TapTables()


class SharedShift:
    """The shift of one model call, where all layers use the same one (`shift_scope="model"`).

    Hooks on the model (see `surgery.py`) mark where a call begins and ends; the first layer to ask in it draws.
    """

    def __init__(self) -> None:
        self.value: Tensor | None = None
        self.depth = 0

    def enter(self) -> None:
        if self.depth == 0:
            self.value = None
        self.depth += 1

    def leave(self) -> None:
        self.depth -= 1

    def get(
        self, config: GeoPosConfig, axes: int, samples: int, like: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        if self.value is None or self.value.shape[0] not in (1, samples):
            # Drawn for three axes: layers of fewer axes in the same model use the leading columns.
            self.value = draw_shift(config, 3, samples, like, generator)
        return self.value[:, :axes]


class GeometryTerm:
    """What a GeoConv adds to a torch convolution class: mixed in before it, it adds the geometry term to its output.

    Attributes:
        geo_weight: parameter [out_channels, geometry channels, *kernel_size]; None makes a plain convolution.
        geo_config: the geometry channel's options.
        geo_scale: factor on the term; 0 gives exactly the plain convolution.
        geo_shared_shift: set where the model's layers share one shift.
        geo_tile: set where the model is one that works on an image by tiles.
    """

    geo_parameter_names = ("geo_weight",)
    geo_weight: nn.Parameter | None
    geo_config: GeoPosConfig | None = None
    geo_scale: float = 1.0
    geo_shared_shift: SharedShift | None = None
    geo_tile: CurrentTile | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_parameter("geo_weight", None)

    def _add_geometry(self, output: Tensor, input: Tensor) -> Tensor:
        """Add the geometry term to a convolution's output [B, out, *L_out] (or unbatched [out, *L_out])."""
        axes = len(self.kernel_size)
        batched = output.dim() == axes + 2
        # Coordinates in half precision would lose the differences between neighbouring pixels.
        device = output.device.type
        autocast = torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
        with autocast:
            result = self._add_response(output if batched else output.unsqueeze(0), input.shape[-axes:])
        return result if batched else result.squeeze(0)

    def _add_response(self, output: Tensor, size: tuple[int, ...]) -> Tensor:
        """As `_add_geometry`, of a batched output, from an input of this size, in float32 or more."""
        config, axes, start = self.geo_config, len(size), None
        weight = self.geo_weight.to(torch.promote_types(output.dtype, torch.float32))
        if self.geo_scale != 1.0:
            weight = weight * self.geo_scale
        if config.encoding == "constant":
            return add_constant(output, weight)
        if config.basis == "multilinear":
            weight = multilinear_grid(weight, axes)
        shift = self._shift(axes, output.shape[0], weight)
        if self.geo_tile is not None and self.geo_tile.tile is not None:
            start, size = self.geo_tile.tile.within(size)
        taps = _TABLES.get(self, tuple(size), tuple(output.shape[2:]), config, weight, start)
        if config.encoding == "cartesian_radius" or prefers_dense(output, weight, shift):
            return add_dense(output, weight, dense_taps(taps, shift, config))
        return add_separable(output, weight, separable_factors(taps, shift, config), config.basis == "multilinear")

    def _shift(self, axes: int, samples: int, like: Tensor) -> Tensor | None:
        config = self.geo_config
        if config.shift_range == 0 or not (self.training or config.shift_at_inference):
            return None
        generator = None if self.training else _inference_generator(like.device)
        if self.geo_shared_shift is not None:
            return self.geo_shared_shift.get(config, axes, samples, like, generator)
        return draw_shift(config, axes, samples, like, generator)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        if self.geo_weight is None:
            return text
        config, scale = self.geo_config, "" if self.geo_scale == 1.0 else f", geo_scale={self.geo_scale}"
        return f"{text}, encoding={config.encoding}, basis={config.basis}, shift_range={config.shift_range}{scale}"


@cache
def _inference_generator(device: torch.device) -> torch.Generator:
    # Images must not depend on whether a patched model drew shifts from the user's generator.
    return torch.Generator(device).manual_seed(0)


def multilinear_grid(weight: Tensor, axes: int) -> Tensor:
    """Multilinear weights [out, terms] as a kernel of two taps an axis, [out, 1, 2, .., 2], over the powers 0 and 1.

    Entry (p_1, .., p_n) multiplies the product of c_d ** p_d; terms that the encoding lacks are 0.
    """
    if weight.shape[1] < 2**axes:  # 1 and the coordinates, which are entries 0, 1, 2 and 4 of the grid
        leading = nn.functional.pad(weight[:, :3], (0, 1))
        weight = leading if axes == 2 else torch.cat([leading, nn.functional.pad(weight[:, 3:], (0, 3))], dim=1)
    return weight.view(-1, 1, *[2] * axes)


def add_constant(output: Tensor, weight: Tensor) -> Tensor:
    """Add one number a filter, weight [out, 1], to `output` [B, out, *L]; overwritten as by `add_separable`."""
    numbers = weight.view(-1, *[1] * (output.dim() - 2))
    if torch.is_grad_enabled() and (output.requires_grad or weight.requires_grad):
        return output + numbers.to(output.dtype)
    return output.add_(numbers)


DENSE_ELEMENTS = 2**18  # 1 MiB of float32


def prefers_dense(output: Tensor, weight: Tensor, shift: Tensor | None) -> bool:
    """Whether a training step is faster with the channel under all taps written out: in fewer, smaller calls.

    So it is for one shift a batch and no large images. A compiled graph would be made anew at the limit.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or (shift is not None and shift.shape[0] > 1):
        return False
    return math.prod(output.shape[2:]) * math.prod(weight.shape[1:]) <= DENSE_ELEMENTS


def add_dense(output: Tensor, weight: Tensor, taps: Tensor) -> Tensor:
    """Add the response of weight [out, C, *k] to taps [S, pixels, C * prod(k)] to `output` [B, out, *L]."""
    filters, taps = weight.flatten(1), taps.squeeze(0)
    if is_channels_last(output):
        shape = (len(output), *output.shape[2:], len(filters))
        response = torch.matmul(taps, filters.t()).to(output.dtype).view(-1, *shape[1:])
        # Expanded before axes are permuted, so that the backward pass sums over the batch in the order of memory: eight
        # times as fast.
        return output + response.expand(shape).movedim(-1, 1)
    response = torch.matmul(filters, taps.mT).to(output.dtype).view(-1, *output.shape[1:])
    return output + response  # not a view, on which in-place activations would cost copies


def is_channels_last(output: Tensor) -> bool:
    """Whether [B, out, *L], of two or three axes, lies as [B, *L, out] in memory.

    A result that lies otherwise makes the layers after it take other code paths, which round otherwise.
    """
    memory_format = {4: torch.channels_last, 5: torch.channels_last_3d}.get(output.dim())
    if memory_format is None or output.is_contiguous():
        return False
    return output.is_contiguous(memory_format=memory_format)


def add_separable(
    output: Tensor, weight: Tensor, factors: list[tuple[int, list[Tensor]]], powers: bool = False
) -> Tensor:
    """Add sum over terms of (factors x weight) to `output`.

    Args:
        output: [B, out, *L]; overwritten where autograd does not need it.
        weight: [out, channels, *k], float32 or float64.
        factors: pairs (channel, one [S, L_d, k_d] tensor an axis), S = 1 or B.
        powers: each factor holds the powers 0 and 1 of a coordinate, so that its first column is 1.
    """
    if is_channels_last(output):
        # [B, *L, out] in memory: leave all axes but the last for the last product, so that rows are contiguous.
        left = _cat([_outer_product(axes[:-1]) for _, axes in factors], dim=-1)
        right = [torch.einsum("sxk,o...k->s...xo", axes[-1], weight[:, c]) for c, axes in factors]
        right = _cat([part.flatten(1, -3) for part in right], dim=1)
        rows = output.movedim(1, -1)
        lines, right = rows.flatten(1, -3).flatten(2), right.flatten(2)
        if powers and left.shape[2] == 2 and prefers_lines(lines, left):
            result = lines.add_(right[:, :1]).addcmul_(left[..., 1:], right[:, 1:])
        else:
            result = _add_product(lines, left, right)
        return result.view(rows.shape).movedim(-1, 1)
    left = _cat([_contract_leading(weight[:, c], axes[:-1]) for c, axes in factors], dim=-1)
    right = _cat([axes[-1] for _, axes in factors], dim=-1).transpose(1, 2)
    lines, left = output.flatten(1, -2), left.flatten(1, -2)
    if powers and prefers_lines(lines, left):
        return lines.add_(left[..., :1]).addcmul_(left[..., 1:], right[:, 1:]).view(output.shape)
    return _add_product(lines, left, right).view(output.shape)


LINE_LENGTH = 64


def prefers_lines(lines: Tensor, weight: Tensor) -> bool:
    """Whether a constant and a slope for each line are added faster, in place, than a product of two columns.

    On a CPU it takes half the time for lines of 64 values and is slower for short ones: a product of two columns spends
    its time on packing. A compiler fuses neither into the convolution.
    """
    if torch.compiler.is_compiling() or lines.dtype != weight.dtype or lines.shape[2] < LINE_LENGTH:
        return False
    return not (torch.is_grad_enabled() and (lines.requires_grad or weight.requires_grad))


def _outer_product(axes: list[Tensor]) -> Tensor:
    """The factors of one or two axes, [S, L_d, k_d] each, as one: [S, product of L_d, product of k_d]."""
    if len(axes) == 1:
        return axes[0]
    return torch.einsum("sxa,syb->sxyab", *axes).flatten(3).flatten(1, 2)


def _contract_leading(weight: Tensor, axes: list[Tensor]) -> Tensor:
    """Contract all kernel axes of weight [out, *k] but the last: [S, out, *L, k_n]."""
    if not axes:
        return weight.unsqueeze(0)
    if len(axes) == 1:
        return torch.matmul(axes[0].unsqueeze(1), weight)
    return torch.einsum("sxa,syb,oabc->soxyc", *axes, weight)


def _cat(tensors: list[Tensor], dim: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=dim)


def _add_product(output: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """output [B, M, N] + left [S, M, K] @ right [S, K, N]."""
    in_place = not (torch.is_grad_enabled() and (output.requires_grad or left.requires_grad))
    if output.dtype != left.dtype:
        samples = max(left.shape[0], right.shape[0])
        response = torch.bmm(left.expand(samples, -1, -1), right.expand(samples, -1, -1))
        return output.add_(response) if in_place else output + response.to(output.dtype)
    if not in_place and left.shape[0] == right.shape[0] == 1:
        return output + torch.bmm(left, right)  # its backward pass adds up the batch before the products
    left, right = left.expand(output.shape[0], -1, -1), right.expand(output.shape[0], -1, -1)
    return output.baddbmm_(left, right) if in_place else torch.baddbmm(output, left, right)


class ConvGeometry(GeometryTerm):
    """The geometry term for ordinary convolutions: enters at `_conv_forward`, below whatever a subclass pads itself."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        output = super()._conv_forward(input, weight, bias)
        if self.geo_weight is None or self.geo_scale == 0:
            return output
        return self._add_geometry(output, input)


class ConvTransposeGeometry(GeometryTerm):
    """The geometry term for transposed convolutions, which have only `forward`."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        output = super().forward(input, output_size)
        if self.geo_weight is None or self.geo_scale == 0:
            return output
        return self._add_geometry(output, input)


def geometry_weight(conv: nn.Module, config: GeoPosConfig) -> Tensor:
    """A zero geometry weight for a convolution, [out, *config.weight_shape(kernel)].

    Float64 beside float64 weights, else float32: also beside half-precision weights, since training keeps it so.
    """
    stored = stored_parameter(conv)
    dtype = torch.float64 if stored.dtype == torch.float64 else torch.float32
    shape = (conv.out_channels, *config.weight_shape(conv.kernel_size))
    return torch.zeros(shape, dtype=dtype, device=stored.device)


def stored_parameter(conv: nn.Module) -> Tensor:
    """A parameter that says where a convolution's weights are.

    Under `weight_norm`, `weight` is a result of the last call: on the meta device in a model that was just loaded.
    """
    return next((parameter for parameter in conv._parameters.values() if parameter is not None), conv.weight)


@cache
def geoconv_class(base: type[nn.Module]) -> type[nn.Module]:
    """The GeoConv subclass of any torch convolution class, for surgery on existing modules.

    Its constructor is the base's and makes a plain convolution, since libraries build layers with
    `type(layer)(in, out, ...)` (PEFT's LoRA factors do).
    """
    mixin = ConvTransposeGeometry if issubclass(base, nn.modules.conv._ConvTransposeNd) else ConvGeometry

    def __reduce_ex__(self, protocol):  # a class made at run time is found again by its base
        return _rebuild, (base,), self.__getstate__()

    members = {"geo_base": base, "__reduce_ex__": __reduce_ex__, "__doc__": mixin.__doc__}
    return type(f"Geo{base.__name__}", (mixin, base), members)


def _rebuild(base: type[nn.Module]) -> nn.Module:
    cls = geoconv_class(base)
    return cls.__new__(cls)


class _NewGeoConv:
    """Constructor shared by the layers below: the convolution's arguments, a `config`, and `basis` in place of its."""

    def __init__(self, *args: Any, config: GeoPosConfig | None = None, basis: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = config or GeoPosConfig(basis=basis)
        self.geo_config = config if basis in (None, config.basis) else replace(config, basis=basis, border=None)
        self.geo_weight = nn.Parameter(geometry_weight(self, self.geo_config).to(self.weight.dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights as torch draws those of the convolution over the concatenated input."""
        if self._parameters.get("geo_weight") is None:  # called by torch before the geometry weight exists
            return
        fan_in = self.weight[0].numel() + (0 if self.transposed else self.geo_weight[0].numel())
        bound = 1 / math.sqrt(fan_in)
        for parameter in (self.weight, self.geo_weight, self.bias):
            if parameter is not None:
                nn.init.uniform_(parameter, -bound, bound)


class GeoConv1d(_NewGeoConv, ConvGeometry, nn.Conv1d):
    """`nn.Conv1d` with a geometry channel: takes its arguments and `config`. [B, C, L] -> [B, out, L']."""


class GeoConv2d(_NewGeoConv, ConvGeometry, nn.Conv2d):
    """`nn.Conv2d` with a geometry channel: takes its arguments and `config`. [B, C, H, W] in and out."""


class GeoConv3d(_NewGeoConv, ConvGeometry, nn.Conv3d):
    """`nn.Conv3d` with a geometry channel: takes its arguments and `config`. [B, C, D, H, W] in and out."""


class GeoConvTranspose1d(_NewGeoConv, ConvTransposeGeometry, nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` with a geometry channel; in basis `taps`, `geo_weight` is [out, channels, k]."""


class GeoConvTranspose2d(_NewGeoConv, ConvTransposeGeometry, nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` with a geometry channel; in basis `taps`, `geo_weight` is [out, channels, kh, kw]."""


class GeoConvTranspose3d(_NewGeoConv, ConvTransposeGeometry, nn.ConvTranspose3d):
    """`nn.ConvTranspose3d` with a geometry channel; in basis `taps`, `geo_weight` is [out, channels, kd, kh, kw]."""
