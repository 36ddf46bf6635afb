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
from .frames import CurrentFrames, FrameMap
from .model_call import ModelCall, inference_generator
from .response import add_constant, add_dense, add_separable, multilinear_grid, prefers_dense
from .taps import Taps, TapTables, dense_taps, separable_factors
from .tiling import CurrentTile

_TABLES = TapTables()


class GeometryTerm:
    """What a GeoConv adds to a torch convolution class: mixed in before it, it adds the geometry term to its output.

    Attributes:
        geo_weight: parameter [out_channels, geometry channels, *kernel_size]; None makes a plain convolution.
        geo_config: the geometry channel's options.
        geo_scale: factor on the term; 0 gives exactly the plain convolution.
        geo_call: the call of the patched model; None for a layer of its own, which draws shifts in training mode as
            dropout does. A patched model's layers draw only in calls that record gradients, see `model_call.py`.
        geo_tile: set where the model is one that works on an image by tiles.
        geo_frames: the frames that coordinates are counted in; None where none were ever set.
    """

    geo_parameter_names = ("geo_weight",)
    geo_weight: nn.Parameter | None
    geo_config: GeoPosConfig | None = None
    geo_scale: float = 1.0
    geo_call: ModelCall | None = None
    geo_tile: CurrentTile | None = None
    geo_frames: CurrentFrames | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_parameter("geo_weight", None)

    def _add_geometry(self, output: Tensor, input: Tensor) -> Tensor:
        """Add the geometry term to a convolution's output [B, out, *L_out] (or unbatched [out, *L_out])."""
        axes = len(self.kernel_size)
        batched = output.dim() == axes + 2
        # Coordinates in half precision would lose the differences between neighbouring pixels.
        device = output.device.type
        # torch knows of no autocast on the meta device.
        active = device != "meta" and torch.is_autocast_enabled(device)
        autocast = torch.autocast(device, enabled=False) if active else nullcontext()
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
            start, size = self.geo_tile.place(self, size)
        taps = _TABLES.get(self, tuple(size), tuple(output.shape[2:]), config, weight, start)
        frames = None if self.geo_frames is None else self.geo_frames.now()
        if frames is None:
            return self._add_taps(output, weight, taps, shift)
        maps = frames.maps(axes, output.shape[0], weight)
        if config.frame_window or len(maps) == 1:
            for one in maps:
                output = self._add_taps(output, weight, taps, shift, one)
            return output
        index = frames.nearest(taps.places, maps).unsqueeze(1)
        samples = max(len(index), 1 if shift is None else len(shift))
        response = torch.zeros_like(output[:samples], dtype=weight.dtype)
        for frame, one in enumerate(maps):
            alone = self._add_taps(torch.zeros_like(response), weight, taps, shift, one)
            response = torch.where(index == frame, alone, response)
        return output + response.to(output.dtype)

    def _add_taps(
        self, output: Tensor, weight: Tensor, taps: Taps, shift: Tensor | None, frame: FrameMap | None = None
    ) -> Tensor:
        """Add what the weight makes of the taps. shift: [1 or B, axes]. frame: None for the image itself."""
        config, own = self.geo_config, shift
        if frame is not None:
            shift = frame.offset if own is None else frame.offset + own
        dense = config.encoding == "cartesian_radius" or prefers_dense(output, weight, shift)
        make = dense_taps if dense else separable_factors
        if frame is None or own is not None:
            table = make(taps, shift, config, frame)
        else:
            table = frame.made_once(make, taps, config)
        if dense:
            return add_dense(output, weight, table)
        windowed = frame is not None and config.frame_window
        return add_separable(output, weight, table, config.basis == "multilinear" and not windowed)

    def _shift(self, axes: int, samples: int, like: Tensor) -> Tensor | None:
        config, call = self.geo_config, self.geo_call
        if config.shift_range == 0:
            return None
        if self.training and (call is None or call.records_gradients()):
            generator = None
        elif config.shift_at_inference:
            generator = inference_generator(like.device)
        else:
            return None
        if call is not None and config.shift_scope == "model":
            return call.shared_shift(config, axes, samples, like, generator)
        return draw_shift(config, axes, samples, like, generator)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        if self.geo_weight is None:
            return text
        config, scale = self.geo_config, "" if self.geo_scale == 1.0 else f", geo_scale={self.geo_scale}"
        return f"{text}, encoding={config.encoding}, basis={config.basis}, shift_range={config.shift_range}{scale}"


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

    Float64 beside float64 weights, else float32: also beside half-precision weights, since training keeps it so. It can
    be trained also where the model is patched in inference mode.
    """
    stored = stored_parameter(conv)
    dtype = torch.float64 if stored.dtype == torch.float64 else torch.float32
    shape = (conv.out_channels, *config.weight_shape(conv.kernel_size))
    with torch.inference_mode(False):
        return torch.zeros(shape, dtype=dtype, device=stored.device)


def stored_parameter(conv: nn.Module) -> Tensor:
    """A parameter that says where a convolution's weights are.

    Under `weight_norm`, `weight` is a result of the last call: on the meta device in a model that was just loaded.
    """
    return next((parameter for parameter in conv._parameters.values() if parameter is not None), conv.weight)


@cache
def geoconv_class(base: type[nn.Module]) -> type[nn.Module]:
    """The GeoConv subclass of any torch convolution class, for surgery on existing modules (`PatchedConv2d`).

    Its constructor is the base's and makes a plain convolution, since libraries build layers with
    `type(layer)(in, out, ...)` (PEFT's LoRA factors do).
    """
    mixin = (
        ConvTransposeGeometry
        if issubclass(base, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
        else ConvGeometry
    )

    def __reduce_ex__(self, protocol):  # a class made at run time is found again by its base
        return _rebuild, (base,), self.__getstate__()

    members = {"geo_base": base, "__reduce_ex__": __reduce_ex__, "__doc__": mixin.__doc__}
    return type(f"Patched{base.__name__}", (mixin, base), members)


def _rebuild(base: type[nn.Module]) -> nn.Module:
    cls = geoconv_class(base)
    return cls.__new__(cls)


class _NewGeoConv:
    """Constructor shared by the layers below: the convolution's arguments, a `config`, and `basis` in place of its."""

    def __init__(
        self,
        *args: Any,
        config: GeoPosConfig | None = None,
        basis: str | None = None,
        device: torch.device | str | None = None,  # named, since `torch.nn.utils.skip_init` asks for it
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, device=device, **kwargs)
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
    """`nn.Conv1d` with a geometry channel: takes its arguments and `config`. [B, C, L] -> [B, out, L'].

    Example:
        >>> GeoConv1d(4, 8, 3, padding=1)(torch.zeros(2, 4, 16)).shape
        torch.Size([2, 8, 16])
    """


class GeoConv2d(_NewGeoConv, ConvGeometry, nn.Conv2d):
    """`nn.Conv2d` with a geometry channel: takes its arguments and `config`. [B, C, H, W] in and out.

    Example:
        >>> layer = GeoConv2d(4, 8, 3, padding=1, config=GeoPosConfig(encoding="sum"))
        >>> layer(torch.zeros(2, 4, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
        >>> layer.geo_weight.shape  # a kernel over the geometry channel
        torch.Size([8, 1, 3, 3])
        >>> GeoConv2d(4, 8, 3, basis="multilinear").geo_weight.shape  # coefficients of 1, x, y and xy
        torch.Size([8, 4])
    """


class GeoConv3d(_NewGeoConv, ConvGeometry, nn.Conv3d):
    """`nn.Conv3d` with a geometry channel: takes its arguments and `config`. [B, C, D, H, W] in and out.

    Example:
        >>> GeoConv3d(4, 8, 3, padding=1)(torch.zeros(2, 4, 5, 6, 7)).shape
        torch.Size([2, 8, 5, 6, 7])
    """


class GeoConvTranspose1d(_NewGeoConv, ConvTransposeGeometry, nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` with a geometry channel; in basis `taps`, `geo_weight` is [out, channels, k].

    Example:
        >>> GeoConvTranspose1d(4, 2, 4, stride=2, padding=1)(torch.zeros(1, 4, 8)).shape
        torch.Size([1, 2, 16])
    """


class GeoConvTranspose2d(_NewGeoConv, ConvTransposeGeometry, nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` with a geometry channel; in basis `taps`, `geo_weight` is [out, channels, kh, kw].

    Example:
        >>> GeoConvTranspose2d(4, 2, 4, stride=2, padding=1)(torch.zeros(1, 4, 8, 8)).shape
        torch.Size([1, 2, 16, 16])
    """


class GeoConvTranspose3d(_NewGeoConv, ConvTransposeGeometry, nn.ConvTranspose3d):
    """`nn.ConvTranspose3d` with a geometry channel; in basis `taps`, `geo_weight` is [out, channels, kd, kh, kw].

    Example:
        >>> GeoConvTranspose3d(4, 2, 4, stride=2, padding=1)(torch.zeros(1, 4, 4, 4, 4)).shape
        torch.Size([1, 2, 8, 8, 8])
    """
