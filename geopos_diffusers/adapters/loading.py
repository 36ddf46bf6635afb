"""Putting an adapter into a model: which component each part goes to, whether it fits, and then its weights."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import AdapterError, SurgeryError
from ..patching.config import GeoConvConfig, exact_names
from ..patching.patched_model import (
    DEFAULT_ADAPTER,
    built_layers,
    geoconv_models,
    geoconv_parameters,
    marked_models,
    shorten,
)
from ..patching.status import GeoConvStatus, geoconv_status
from ..patching.stock_saving import keep_generation_config
from ..patching.surgery import apply_geoconv, remove_geoconv
from ..patching.targets import convolutions
from .base_model import BASE_KEYS, accepts_class, class_name, component_of, fingerprint
from .files import find_adapters, geometry_config, read_adapter
from .named_adapters import put_adapter

logger = logging.getLogger(__name__)


def load_geoconv_weights(
    pipe_or_model: Any,
    name_or_path: str | os.PathLike,
    adapter_name: str = DEFAULT_ADAPTER,
    *,
    revision: str | None = None,
    check_base: bool = True,
) -> GeoConvStatus:
    """Patch the layers that an adapter has weights for and fill them in.

    A network that was built of GeoConvs has its own layers filled.

    Args:
        pipe_or_model: unpatched, or patched in the adapter's own layers and with its geometry channel.
        name_or_path: an adapter's folder, its safetensors file, the name of a packaged one, a Hub id "owner/name", or
            the folder (or Hub id) of a patched pipeline or model that `save_pretrained` wrote.
        adapter_name: what to call it. Weights under this name are replaced; other adapters are kept, inactive (see
            `set_geoconv_adapters`).
        revision: branch, tag or commit on the Hub.
        check_base: compare the model with the adapter's base, where its file names it (see `base_model.py`): another
            class is an error, and a warning is logged for the same class with other layers. False for neither.

    Raises:
        AdapterError: files that are missing, damaged or foreign; an adapter of another class of model; weights for
            layers that the model lacks or has in another shape. The model is left as it was.
        SurgeryError: the model is patched in other layers or with another geometry channel.

    Example:
        >>> from geopos_diffusers import apply_geoconv, save_geoconv_weights
        >>> from torch import nn
        >>> trained, fresh = (nn.Sequential(nn.Conv2d(3, 8, 3)) for _ in range(2))
        >>> _ = apply_geoconv(trained)
        >>> _ = save_geoconv_weights(trained, "my-adapter")
        >>> load_geoconv_weights(fresh, "my-adapter").patched
        ['0']
    """
    if not isinstance(adapter_name, str) or not adapter_name:
        raise AdapterError(f"adapter_name must be a word; got {adapter_name!r}")
    parts = [part for path, folder in find_adapters(name_or_path, revision) for part in _read_parts(path, folder)]
    models = _match_components(pipe_or_model, parts)
    newly_patched = [model for model, _ in models if not marked_models(model)]
    try:
        for model, part in models:
            if check_base:
                _check_class(model, part)
            _check_names(model, part)
            if not marked_models(model) and built_layers(model).keys() >= {*part.layers}:
                _check_channel(model, part)
            else:
                _patch(model, part, newly_patched)
            _check_fit(model, part)
    except Exception:
        for model in newly_patched:
            remove_geoconv(model)
        raise
    for model, part in models:
        if check_base:
            _warn_of_another_base(model, part)
        put_adapter(model, adapter_name, part.tensors, first=bool(model in newly_patched and marked_models(model)))
    keep_generation_config(pipe_or_model)
    return geoconv_status(pipe_or_model)


@dataclass(frozen=True)
class _Part:
    """What an adapter file holds for one component; its config without targets."""

    path: Path
    component: str
    config: GeoConvConfig
    base: dict[str, str]  # the values of BASE_KEYS that the file holds
    tensors: dict[str, Tensor]

    @property
    def base_class(self) -> str | None:
        return self.base.get("base_classes")

    @property
    def layers(self) -> list[str]:
        return [name.removesuffix(".geo_weight") for name in self.tensors]


def _read_parts(path: Path, folder: str | None) -> list[_Part]:
    """The parts of one file; `folder` is the component that it was saved with, if it was saved with one alone."""
    tensors, values = read_adapter(path)
    by_component: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        component, _, name = key.partition(".")
        if not component or not name.endswith(".geo_weight"):
            raise AdapterError(f"{path} holds {key!r}: not a geometry weight of a component")
        by_component.setdefault(component, {})[name] = tensor
    if not by_component:
        raise AdapterError(f"{path} holds no weights")
    return [
        _Part(
            path,
            folder if folder and len(by_component) == 1 else component,
            geometry_config(values),
            _recorded_base(values, component),
            weights,
        )
        for component, weights in by_component.items()
    ]


def _recorded_base(values: dict[str, Any], component: str) -> dict[str, str]:
    """What the config says of one component's base, as far as it is text: files of earlier releases say less."""
    found = {key: values[key].get(component) for key in BASE_KEYS if isinstance(values.get(key), dict)}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _match_components(pipe_or_model: Any, parts: list[_Part]) -> list[tuple[nn.Module, _Part]]:
    """The model that each of the adapter's parts goes to."""
    if isinstance(pipe_or_model, nn.Module):
        path = parts[0].path
        model = geoconv_models(pipe_or_model, GeoConvConfig())[""]
        same = [part for part in parts if part.base_class == class_name(model)]
        fitting = same or [part for part in parts if part.component == component_of(model)] or parts
        if len(fitting) != 1:
            held = ", ".join(repr(part.component) for part in parts)
            raise AdapterError(
                f"{path} holds weights for {held}; load it into a pipeline, not a {type(model).__name__}"
            )
        return [(model, fitting[0])]
    return [(_net_of(pipe_or_model, part) or _component_of(pipe_or_model, part), part) for part in parts]


def _component_of(pipe: Any, part: _Part) -> nn.Module:
    """The component of a pipeline that a part goes to."""
    name = _component_in(pipe, part)
    try:
        return geoconv_models(pipe, GeoConvConfig(components=(name,)))[name]
    except SurgeryError as error:
        raise AdapterError(f"{part.path} does not fit: {error}") from error


def _net_of(pipe: Any, part: _Part) -> nn.Module | None:
    """The one of several ControlNets that was patched by itself: they are saved as controlnet, controlnet_1 .."""
    component, _, number = part.component.rpartition("_")
    if not number.isdecimal():
        component, number = part.component, "0"
    nets = getattr(getattr(pipe, component, None), "nets", ())
    net = nets[int(number)] if int(number) < len(nets) else None
    return net if net is not None and part.base_class == class_name(net) else None


def _component_in(pipe: Any, part: _Part) -> str:
    """A part's name in this pipeline: its own, or, saved from a model alone, that of the one component of its class."""
    components = getattr(pipe, "components", None)
    if not isinstance(components, dict):  # no pipeline: the surgery says so
        return part.component
    same = [name for name, model in components.items() if part.base_class == class_name(model)]
    return same[0] if part.component not in components and len(same) == 1 else part.component


def _check_class(model: nn.Module, part: _Part) -> None:
    if part.base_class is not None and not accepts_class(model, part.base_class):
        raise AdapterError(
            f"{part.path} is an adapter of {_base_label(part)}, not of {class_name(model)}; "
            "check_base=False loads it where its layers fit"
        )


def _warn_of_another_base(model: nn.Module, part: _Part) -> None:
    recorded = part.base.get("base_fingerprints")
    if recorded is not None and part.base_class == class_name(model) and recorded != fingerprint(model):
        logger.warning(
            "%s was trained beside %s with other layers than this one: it fits, but may not work; "
            "check_base=False says no more of it",
            part.path,
            _base_label(part),
        )


def _base_label(part: _Part) -> str:
    """The base's class and name, in characters that a terminal takes: a file's text is anyone's."""
    name = part.base.get("base_models")
    label = f"{part.base_class} of {name}" if name else part.base_class
    return str(label)[:200].encode("unicode_escape").decode()


def _check_channel(model: nn.Module, part: _Part) -> None:
    """Whether a network of GeoConvs reads its geometry weights as the adapter means them."""
    if part.config.default_frame is not None:
        label = type(model).__name__
        raise AdapterError(f"{part.path} was trained with frames; {label} is built without a default frame")
    for name, layer in built_layers(model).items():
        if layer.geo_config is not None and (difference := layer.geo_config.difference(part.config)):
            raise AdapterError(f"{part.path} does not fit {type(model).__name__}: {name} is built with {difference}")


def _patch(model: nn.Module, part: _Part, newly_patched: list[nn.Module]) -> None:
    try:
        apply_geoconv(model, replace(part.config, target_modules=exact_names(part.layers)))
    except SurgeryError as error:
        if model not in newly_patched:
            raise
        raise AdapterError(f"{part.path} does not fit {type(model).__name__}: {error}") from error


def _check_names(model: nn.Module, part: _Part) -> None:
    """Before anything is made of a file's names, of which it may hold any number."""
    known = {name for name, _ in convolutions(model)}
    _refuse(model, part, "layers not in the model", [name for name in part.layers if name not in known])


def _check_fit(model: nn.Module, part: _Part) -> None:
    """After patching: whether each tensor has its place."""
    shapes = {name: list(weight.shape) for name, weight in geoconv_parameters(model).items()}
    _refuse(model, part, "layers that cannot be patched", [name for name in part.tensors if name not in shapes])
    _refuse(model, part, "layers without weights", [name for name in shapes if name not in part.tensors])
    found = {name: list(tensor.shape) for name, tensor in part.tensors.items()}
    others = [f"{name} {shape} for {shapes[name]}" for name, shape in found.items() if shape != shapes[name]]
    _refuse(model, part, "layers of another shape", others)


def _refuse(model: nn.Module, part: _Part, problem: str, layers: Sequence[str]) -> None:
    if layers:
        shown = shorten(sorted(layers)).replace(".geo_weight", "")
        # A file's keys are anyone's text; repr would quote ordinary names too.
        shown = shown.encode("unicode_escape").decode()
        raise AdapterError(f"{part.path} does not fit {type(model).__name__}; {problem}: {shown}")
