"""From kernel taps to coefficients: an adapter of basis `taps` as one of basis `multilinear`, for images of one size.

Away from the border a tap at offset t reads u + h t, where u is the output pixel's coordinate and h that of one pixel
(docs/theory.md). So along each axis the taps' sum is the coefficient of u, and h times their moment is the constant.
h depends on the size of the layer's input: the conversion is exact on the interior at that size.
"""

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import AdapterError, ConfigError
from ..patching.config import GeoConvConfig, GeoPosConfig
from ..patching.encoding import axis_coordinates
from ..patching.layers import GeometryTerm
from ..patching.offload import group_offload_kinds
from ..patching.patched_model import marked_models, patched_layers
from ..patching.status import GeoConvStatus, geoconv_status
from ..patching.surgery import apply_geoconv, remove_geoconv
from .named_adapters import list_geoconv_adapters

CONVERTIBLE = ("product", "cartesian")


def convert_adapter(pipe_or_model: Any, run: Callable[[], Any]) -> GeoConvStatus:
    """Turn the adapter of a patched pipeline or model from basis `taps` into basis `multilinear`, in place.

    Args:
        run: calls the pipeline or model once at the size that the conversion is for, so that every patched layer runs.

    Returns:
        What is patched, with the new config.

    Raises:
        AdapterError: nothing is patched, there are several adapters, this one is multilinear already or its encoding
            has no such basis, weights are offloaded, or a layer ran at several sizes, did not run, or is a strided
            transposed convolution. The model is left as it was.
    """
    models = marked_models(pipe_or_model)
    configs = {component: geoconv_status(model).config for component, model in models.items()}
    _check_models(pipe_or_model, models)
    for config in configs.values():
        check_convertible(config)
    sizes = _record_input_sizes(models, run)
    converted = {}
    for component, model in models.items():
        for name, layer in patched_layers(model).items():
            try:
                weight = taps_to_multilinear(layer.geo_weight.detach(), layer, sizes[layer], configs[component])
            except AdapterError as error:
                raise AdapterError(f"{_label(component, name)} is {error}") from error
            converted[component, name] = weight, layer.geo_scale
    for component, model in models.items():
        remove_geoconv(model)
        apply_geoconv(model, replace(configs[component], basis="multilinear", border=None))
        for name, layer in patched_layers(model).items():
            weight, layer.geo_scale = converted[component, name]
            layer.geo_weight.data = weight
    return geoconv_status(pipe_or_model)


def check_convertible(config: GeoConvConfig) -> None:
    """Refuse what has no taps or no multilinear form.

    Raises:
        AdapterError: says which.
    """
    if config.basis == "multilinear":
        raise AdapterError("the adapter's basis is multilinear already: there are no taps to convert")
    if config.default_frame is not None:
        raise AdapterError("the adapter was trained with frames: its taps amount to other coefficients in each of them")
    if config.encoding not in CONVERTIBLE:
        known = " and ".join(CONVERTIBLE)
        raise AdapterError(f"encoding {config.encoding!r} has no multilinear basis; only {known} can be converted")


def run_once(pipe: Any, height: int, width: int) -> None:
    """Run a text-to-image pipeline for one step at a size in pixels, its VAE too where that is patched.

    Raises:
        ConfigError: a pipeline that takes no such options, or a size that it cannot generate.
    """
    options = {"prompt": "", "height": height, "width": width, "num_inference_steps": 1}
    if missing := [name for name in options if name not in inspect.signature(pipe.__call__).parameters]:
        raise ConfigError(f"{type(pipe).__name__} takes no {', '.join(missing)}: it cannot be run at a given size")
    with_vae = "vae" in marked_models(pipe)
    pipe.set_progress_bar_config(disable=True)
    try:
        pipe(**options, output_type="np" if with_vae else "latent", generator=torch.Generator().manual_seed(0))
        if with_vae:
            parameter = next(pipe.vae.parameters())
            pipe.vae.encode(parameter.new_zeros(1, pipe.vae.config.in_channels, height, width))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{type(pipe).__name__} cannot generate {height}x{width} pixels: {error}") from error


def _check_models(pipe_or_model: Any, models: dict[str, nn.Module]) -> None:
    if not models:
        raise AdapterError("the model is not patched: there are no taps to convert")
    for component, names in list_geoconv_adapters(pipe_or_model).items():
        if len(names) > 1:
            raise AdapterError(
                f"{_label(component, 'model')} has the adapters {', '.join(names)}; convert one at a time"
            )
    for model in models.values():
        if group_offload_kinds(model) or any(hasattr(module, "_hf_hook") for module in model.modules()):
            raise AdapterError(f"the weights of {type(model).__name__} are offloaded; convert before enabling offload")


def _record_input_sizes(models: dict[str, nn.Module], run: Callable[[], Any]) -> dict[GeometryTerm, tuple[int, ...]]:
    """Pixels along each axis of what the geometry term of every patched layer sees in one call of `run`.

    They are noted where the term is added, below the padding that some convolutions do in their own `forward`.
    """
    seen: dict[GeometryTerm, set[tuple[int, ...]]] = {}
    with ExitStack() as undo:
        for layer in (layer for model in models.values() for layer in patched_layers(model).values()):
            seen[layer] = set()
            undo.callback(setattr, layer, "geo_scale", layer.geo_scale)
            layer.geo_scale = 1.0  # at 0 there would be no term
            layer._add_geometry = _SizeRecorder(layer, seen[layer])
            undo.callback(delattr, layer, "_add_geometry")
        with torch.no_grad():
            run()
    for component, model in models.items():
        for name, layer in patched_layers(model).items():
            if not seen[layer]:
                raise AdapterError(f"{_label(component, name)} did not run, so its taps cannot be converted")
            if len(seen[layer]) > 1:
                shown = ", ".join("x".join(map(str, size)) for size in sorted(seen[layer]))
                raise AdapterError(f"{_label(component, name)} ran at several sizes ({shown}); taps convert for one")
    return {layer: next(iter(sizes)) for layer, sizes in seen.items()}


class _SizeRecorder:
    """Stands in for a layer's `_add_geometry`: notes the size of the input, then adds."""

    def __init__(self, layer: GeometryTerm, sizes: set[tuple[int, ...]]) -> None:
        self.layer, self.sizes = layer, sizes

    def __call__(self, output: Tensor, input: Tensor) -> Tensor:
        self.sizes.add(tuple(input.shape[-len(self.layer.kernel_size) :]))
        return type(self.layer)._add_geometry(self.layer, output, input)


def _label(component: str, name: str) -> str:
    return f"{component}.{name}" if component else name


def taps_to_multilinear(weight: Tensor, conv: nn.Module, input_size: tuple[int, ...], config: GeoPosConfig) -> Tensor:
    """Coefficients that answer as `weight` does at every output pixel whose taps all lie within the input.

    Args:
        weight: taps [out, channels, *kernel] of encoding product or cartesian.
        conv: the convolution; its kernel, dilation, stride and kind are read.
        input_size: pixels along each axis of the input.
        config: the taps' options.

    Returns:
        [out, terms], ordered as `encoding.monomials`, of the dtype and device of `weight` (computed in float64).

    Raises:
        AdapterError: a transposed convolution with a stride: its output pixels see different taps in turn, so that
            their responses are no single polynomial.
    """
    axes = len(input_size)
    if conv.transposed and max(conv.stride) > 1:
        stride = "x".join(map(str, conv.stride))
        raise AdapterError(f"a transposed convolution of stride {stride}: its taps take turns, no one polynomial fits")
    maps = [_axis_map(conv, axis, input_size, config) for axis in range(axes)]
    taps = weight.to("cpu", torch.float64)  # not every device has float64
    if config.encoding == "product":
        return reduce(_contract_first, maps, taps[:, 0]).flatten(1).to(weight)
    constant, slopes = 0.0, []
    for axis, table in enumerate(maps):
        others = [d + 1 for d in range(axes) if d != axis]
        along = taps[:, axis].sum(dim=others) if others else taps[:, axis]
        constant = constant + along @ table[0]
        slopes.append(along @ table[1])
    return torch.stack([constant, *reversed(slopes)], dim=1).to(weight)


def _axis_map(conv: nn.Module, axis: int, input_size: tuple[int, ...], config: GeoPosConfig) -> Tensor:
    """[2, k]: what each tap adds to the coefficients of 1 and of the output pixel's coordinate along one axis."""
    kernel, length, longest = conv.kernel_size[axis], input_size[axis], max(input_size)
    offsets = (torch.arange(kernel, dtype=torch.float64) - (kernel - 1) / 2) * conv.dilation[axis]
    if conv.transposed:
        offsets = -offsets  # a scattered kernel is read from its end
    pixels = axis_coordinates(torch.arange(2, dtype=torch.float64), length, longest, config)
    return torch.stack([(pixels[1] - pixels[0]) * offsets, torch.ones_like(offsets)])


def _contract_first(taps: Tensor, table: Tensor) -> Tensor:
    """Replace the first kernel axis of [out, k, ...] by powers, put last: [out, ..., 2]."""
    return torch.tensordot(taps, table, dims=([1], [1]))
