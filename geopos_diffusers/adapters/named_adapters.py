"""Several GeoConv adapters on one model: kept under names, switched, mixed by scale, deleted.

A layer's response is linear in its geometry weights, so a mix of adapters of one config is the weighted sum of their
weights: it costs no more to run than one. The adapter that is active alone lives in the layers' own parameters, where
training reaches it; the others are kept beside the model.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import AdapterError, SurgeryError
from ..patching.config import is_finite_number
from ..patching.offload import whole, write_weight
from ..patching.patched_model import (
    ADAPTERS,
    DEFAULT_ADAPTER,
    NamedAdapters,
    geometry_models,
    marked_models,
    named_adapters,
    stored_geometry,
)
from ..patching.surgery import remove_geoconv


def set_geoconv_adapters(
    pipe_or_model: Any, adapter_names: str | Sequence[str], adapter_weights: float | Sequence[float] = 1.0
) -> None:
    """Make a weighted mix of adapters the active one, as diffusers' `set_adapters` does for LoRA.

    One adapter at weight 1 is switched to and can be trained on. A mix is a copy: training it changes none of its
    adapters, and the next switch discards it. A component that lacks some of the adapters takes those that it has.

    Args:
        adapter_names: one or several names, as given to `load_geoconv_weights`.
        adapter_weights: a number for all, or one for each.

    Raises:
        AdapterError: an unknown name, a name given twice, a weight that is not finite, or not a weight for each name.

    Example:
        >>> from geopos_diffusers import apply_geoconv, load_geoconv_weights, save_geoconv_weights
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> _ = apply_geoconv(model)
        >>> path = save_geoconv_weights(model, "hands")
        >>> for name in ("hands", "faces"):
        ...     _ = load_geoconv_weights(model, path, name)
        >>> set_geoconv_adapters(model, ["hands", "faces"], [0.7, 0.3])
        >>> get_active_geoconv_adapters(model)
        {'hands': 0.7, 'faces': 0.3}
    """
    names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
    weights = [adapter_weights] * len(names) if isinstance(adapter_weights, (int, float)) else list(adapter_weights)
    if not names or len(set(names)) != len(names) or len(names) != len(weights):
        raise AdapterError(f"expected different adapter names and a weight for each; got {names} and {weights}")
    for weight in weights:
        if not is_finite_number(weight):
            raise AdapterError(f"adapter weights must be finite numbers; got {weight!r}")
    models = _models_with(pipe_or_model, names)
    mix = {name: float(weight) for name, weight in zip(names, weights, strict=True)}
    for model, adapters in models:
        _activate(model, adapters, {name: weight for name, weight in mix.items() if name in adapters.names})


def list_geoconv_adapters(pipe_or_model: Any) -> dict[str, list[str]]:
    """Names of the adapters that each patched component has ("" for a model given by itself).

    Example:
        >>> from geopos_diffusers import apply_geoconv
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> list_geoconv_adapters(model)
        {}
        >>> _ = apply_geoconv(model)
        >>> list_geoconv_adapters(model)
        {'': ['default']}
    """
    return {component: named_adapters(model).names for component, model in geometry_models(pipe_or_model).items()}


def get_active_geoconv_adapters(pipe_or_model: Any) -> dict[str, float]:
    """Names and weights of the active adapters.

    Example:
        >>> from geopos_diffusers import apply_geoconv, load_geoconv_weights, save_geoconv_weights
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> _ = apply_geoconv(model)
        >>> path = save_geoconv_weights(model, "hands")
        >>> for name in ("hands", "faces"):
        ...     _ = load_geoconv_weights(model, path, name)
        >>> get_active_geoconv_adapters(model)
        {'faces': 1.0}
    """
    models = geometry_models(pipe_or_model).values()
    return {name: weight for model in models for name, weight in named_adapters(model).active.items()}


def delete_geoconv_adapters(pipe_or_model: Any, adapter_names: str | Sequence[str]) -> None:
    """Forget adapters. One that is active leaves the mix; a component whose last one goes is unpatched.

    Raises:
        AdapterError: an unknown name, or the last adapter of a network that was built of GeoConvs.

    Example:
        >>> from geopos_diffusers import apply_geoconv, load_geoconv_weights, save_geoconv_weights
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> _ = apply_geoconv(model)
        >>> path = save_geoconv_weights(model, "hands")
        >>> for name in ("hands", "faces"):
        ...     _ = load_geoconv_weights(model, path, name)
        >>> delete_geoconv_adapters(model, ["default", "faces"])
        >>> list_geoconv_adapters(model)
        {'': ['hands']}
    """
    names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
    for model, adapters in _models_with(pipe_or_model, names):
        left = {name: weight for name, weight in adapters.active.items() if name not in names}
        if not set(adapters.names) - set(names):
            if not marked_models(model):
                raise AdapterError(f"{type(model).__name__} was built of GeoConvs: its last adapter is its own weights")
            remove_geoconv(model)
            continue
        if left != adapters.active:
            _activate(model, adapters, left)
        for name in names:
            adapters.stored.pop(name, None)


def adapter_tensors(model: nn.Module, name: str | None = None) -> dict[str, Tensor]:
    """Geometry weights of a patched model by layer: of the active mix, or of one of its adapters."""
    adapters = named_adapters(model)
    return stored_geometry(model) if name in (None, adapters.living) else adapters.stored[name]


def check_adapter_names(models: Iterable[nn.Module], names: Sequence[str]) -> None:
    """Raises AdapterError for a name that none of the models has."""
    known = sorted({name for model in models for name in named_adapters(model).names})
    for name in names:
        if name not in known:
            raise AdapterError(f"no adapter {name!r}; there are {', '.join(known)}")


def put_adapter(model: nn.Module, name: str, tensors: dict[str, Tensor], *, first: bool) -> None:
    """Give a patched model an adapter of its config and make it the active one.

    Args:
        tensors: geometry weights by layer, checked to fit.
        first: nothing was trained or loaded into the model before.
    """
    adapters = NamedAdapters(active={name: 1.0}) if first else named_adapters(model)
    if adapters.living != name:
        _keep_living(model, adapters)
        adapters.stored.pop(name, None)
        adapters.active = {name: 1.0}
    for key, stored in stored_geometry(model).items():
        write_weight(stored, tensors[key])
    # A single adapter under the default name needs no book-keeping.
    if adapters.names != [DEFAULT_ADAPTER]:
        setattr(model, ADAPTERS, adapters)


def _models_with(pipe_or_model: Any, names: Sequence[str]) -> list[tuple[nn.Module, NamedAdapters]]:
    models = [(model, named_adapters(model)) for model in geometry_models(pipe_or_model).values()]
    if not models:
        raise SurgeryError("the model is not patched")
    check_adapter_names([model for model, _ in models], names)
    return models


def _activate(model: nn.Module, adapters: NamedAdapters, mix: dict[str, float]) -> None:
    if mix == adapters.active:
        return
    _keep_living(model, adapters)
    for key, stored in stored_geometry(model).items():
        # 8-bit floats cannot be added, and 16-bit ones would be rounded at each addition.
        dtype = torch.float64 if stored.dtype == torch.float64 else torch.float32
        total = torch.zeros_like(whole(stored), dtype=dtype)
        for name, weight in mix.items():
            total.add_(adapters.stored[name][key].to(total.device, dtype), alpha=weight)
        write_weight(stored, total)
    adapters.active = mix
    if adapters.living is not None:
        del adapters.stored[adapters.living]
    setattr(model, ADAPTERS, adapters)


def _keep_living(model: nn.Module, adapters: NamedAdapters) -> None:
    if adapters.living is not None:
        adapters.stored[adapters.living] = {
            key: whole(stored).detach().clone() for key, stored in stored_geometry(model).items()
        }
