"""Turning the convolutions of an existing model into GeoConvs, and back.

A module's class is swapped for a subclass that adds the geometry term; the module, its parameters and its name stay.
Everything is checked and allocated before the first swap, so a model is patched whole or left as it was.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from .config import GeoConvConfig, name_matches
from .errors import SurgeryError
from .layers import GeometryTerm, SharedShift, geoconv_class, geometry_weight
from .offload import add_offloaded, group_offload_kinds, remove_offloaded, reshard, stored_weight, takes_offloaded
from .stock_saving import SavePretrained, stock_state_dict
from .targets import (
    canonical_name,
    check_targets,
    choose_layers,
    convolutions,
    forward_is_hooked,
    reason_not_meant,
)
from .tiling import TILED_METHODS, CurrentTile, TiledMethod

DENOISERS = ("unet", "transformer", "transformer_2", "prior", "decoder")
_STATE = "_geoconv_config"
ADAPTERS = "_geoconv_adapters"  # see named_adapters.py


@dataclass(frozen=True)
class GeoConvStatus:
    """What is patched. Layers of a pipeline are named with their component in front ("unet.conv_in")."""

    config: GeoConvConfig | None
    patched: list[str]
    skipped: dict[str, str] = field(repr=False)  # layer: reason
    geometry_parameters: int = 0
    base_parameters: int = 0

    def __str__(self) -> str:
        if not self.patched:
            return f"not patched; {len(self.skipped)} convolutions, {self.base_parameters:,} parameters"
        return (
            f"{len(self.patched)} of {len(self.patched) + len(self.skipped)} convolutions patched, "
            f"{self.geometry_parameters:,} geometry parameters beside {self.base_parameters:,} "
            f"({self.geometry_parameters / max(self.base_parameters, 1):.3%})"
        )


def apply_geoconv(pipe_or_model: Any, config: GeoConvConfig | None = None) -> GeoConvStatus:
    """Make the convolutions that `config` targets GeoConvs, with geometry weights of zero: outputs stay bitwise equal.

    Args:
        pipe_or_model: a diffusers pipeline or any `nn.Module`. A second call that means the same layers and the same
            geometry channel changes nothing.
        config: what to patch and how; None for the defaults.

    Returns:
        What is patched and what is not, with the reason.

    Raises:
        SurgeryError: nothing to patch, a target that names no convolution, a model that is patched otherwise, or
            weights that are offloaded where none can be added. The model is left as it was.
    """
    config = config or GeoConvConfig()
    plans: list[tuple[nn.Module, list[tuple[nn.Module, Tensor]]]] = []
    for component, model in geoconv_models(pipe_or_model, config).items():
        if (present := getattr(model, _STATE, None)) is not None:
            if difference := _difference(model, present, config):
                label = component or type(model).__name__
                raise SurgeryError(f"{label} is patched with {difference}; remove_geoconv first")
            continue
        targets, skipped = choose_layers(model, config)
        check_targets(model, config, targets, skipped)
        plans.append((model, [(conv, geometry_weight(conv, config)) for conv in targets.values()]))
    for model, layers in plans:
        _patch(model, layers, config)
    return geoconv_status(pipe_or_model)


def remove_geoconv(pipe_or_model: Any) -> list[str]:
    """Restore the classes, state-dict keys and outputs that the model had before `apply_geoconv`.

    Returns:
        Names of the layers that were restored; empty where nothing was patched.

    Raises:
        SurgeryError: hooks hold on to the patched `forward` of a transposed convolution. The model is left as it was.
    """
    for name, layer in _all_patched(pipe_or_model).items():
        if forward_is_hooked(layer):
            raise SurgeryError(f"hooks (offload, casting) were put on {name} after patching; remove them first")
    removed = []
    for component, model in marked_models(pipe_or_model).items():
        for name, layer in patched_layers(model).items():
            remove_offloaded(layer, "geo_weight")
            _change_class(layer, type(layer).geo_base)
            del layer._parameters["geo_weight"]
            del layer.geo_config, layer.geo_scale, layer.geo_shared_shift, layer.geo_tile
            removed.append(_qualified(component, name))
        _unshare_shift(model)
        for name in (*TILED_METHODS, "save_pretrained", ADAPTERS):
            vars(model).pop(name, None)
        delattr(model, _STATE)
    return removed


def geoconv_status(pipe_or_model: Any) -> GeoConvStatus:
    """Which layers are patched, which are not and why, and how many parameters there are."""
    config, patched, skipped, geometry, total = None, [], {}, 0, 0
    models = marked_models(pipe_or_model) or geoconv_models(pipe_or_model, GeoConvConfig())
    for component, model in models.items():
        present = getattr(model, _STATE, None)
        config = present or config
        layers = patched_layers(model)
        patched += [_qualified(component, name) for name in layers]
        geometry += sum(layer.geo_weight.numel() for layer in layers.values())
        total += sum(parameter.numel() for parameter in model.parameters())
        for name, reason in choose_layers(model, present or GeoConvConfig())[1].items():
            if name not in layers:
                skipped[_qualified(component, name)] = reason
    return GeoConvStatus(config, patched, skipped, geometry, total - geometry)


def geoconv_parameters(pipe_or_model: Any) -> dict[str, nn.Parameter]:
    """The geometry weights by name ("unet.conv_in.geo_weight" in a pipeline, "conv_in.geo_weight" in a model)."""
    return {
        f"{_qualified(component, name)}.geo_weight": layer.geo_weight
        for component, model in _all_models(pipe_or_model).items()
        for name, layer in patched_layers(model).items()
    }


def stored_geometry(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that hold a model's geometry weights, named as `geoconv_parameters` names them, offloaded or not.

    Raises:
        SurgeryError: they are in group offload's own files.
    """
    if "disk" in group_offload_kinds(model):
        label = type(model).__name__
        raise SurgeryError(
            f"geometry weights of {label} are group-offloaded to disk: they cannot be read or replaced there"
        )
    reshard(model)
    return {f"{name}.geo_weight": stored_weight(layer, "geo_weight") for name, layer in patched_layers(model).items()}


def set_geoconv_scale(pipe_or_model: Any, scale: float, layers: str | tuple[str, ...] | None = None) -> list[str]:
    """Multiply the geometry term by `scale`: 1 as trained, 0 exactly the base model.

    Args:
        layers: which patched layers, as `GeoConvConfig.target_modules`; None for all.

    Returns:
        Names of the layers that were set.

    Raises:
        SurgeryError: nothing is patched, no patched layer is meant, or the scale is not a finite number.
    """
    if not isinstance(scale, (int, float)) or isinstance(scale, bool) or not abs(scale) < float("inf"):
        raise SurgeryError(f"scale must be a finite number; got {scale!r}")
    patched = _all_patched(pipe_or_model)
    pattern = tuple(layers) if isinstance(layers, list) else layers
    chosen = {name: layer for name, layer in patched.items() if pattern is None or name_matches(name, pattern)}
    if not chosen:
        raise SurgeryError(f"no patched layer matches {layers!r}" if patched else "the model is not patched")
    for layer in chosen.values():
        layer.geo_scale = float(scale)
    return list(chosen)


@contextmanager
def disable_geoconv(pipe_or_model: Any) -> Iterator[None]:
    """Within the block the model is exactly its unpatched base, for `state_dict` too; scales come back after it.

    So a model of another class can be built from it there, whose weights are copied from the base: ControlNets by
    `from_unet`, AnimateDiff's UNet by `from_unet2d`.
    """
    scales = {layer: layer.geo_scale for layer in _all_patched(pipe_or_model).values()}
    with ExitStack() as undo:
        for layer, scale in scales.items():
            undo.callback(setattr, layer, "geo_scale", scale)
            layer.geo_scale = 0.0
        for model in marked_models(pipe_or_model).values():
            undo.enter_context(stock_state_dict(model))
        yield


def geoconv_models(pipe_or_model: Any, config: GeoConvConfig) -> dict[str, nn.Module]:
    """The models that `config` speaks of, by component name; "" for a model given by itself.

    Raises:
        SurgeryError: a component does not exist or is no model, or a pipeline has no denoiser.
    """
    if isinstance(pipe_or_model, nn.Module):
        return _all_models(pipe_or_model)
    models = _all_models(pipe_or_model)
    if config.components is None:
        chosen = {name: models[name] for name in DENOISERS if name in models}
        if not chosen:
            raise SurgeryError(f"no denoiser in {type(pipe_or_model).__name__}; name components of {', '.join(models)}")
        return chosen
    for name in config.components:
        if name not in models:
            known = ", ".join(models)
            raise SurgeryError(f"{type(pipe_or_model).__name__} has no model {name!r}; its models are {known}")
    return {name: models[name] for name in config.components}


def marked_models(pipe_or_model: Any) -> dict[str, nn.Module]:
    """The models of a pipeline that are patched, by component name; "" for a model given by itself."""
    models = _all_models(pipe_or_model)
    return {component: model for component, model in models.items() if hasattr(model, _STATE)}


def _all_models(pipe_or_model: Any) -> dict[str, nn.Module]:
    if isinstance(pipe_or_model, nn.Module):
        return {"": _unwrap(pipe_or_model)}
    components = getattr(pipe_or_model, "components", None)
    if not isinstance(components, dict):
        raise SurgeryError(f"expected a diffusers pipeline or a torch module; got {type(pipe_or_model).__name__}")
    return {name: _unwrap(part) for name, part in components.items() if isinstance(part, nn.Module)}


def _unwrap(model: nn.Module) -> nn.Module:
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while hasattr(model, "_orig_mod") or isinstance(model, wrappers):
        model = model.module if isinstance(model, wrappers) else model._orig_mod
    return model


def _qualified(component: str, name: str) -> str:
    return f"{component}.{name}" if component else name


def patched_layers(model: nn.Module) -> dict[str, GeometryTerm]:
    """The GeoConvs of one model by canonical name."""
    return {
        canonical_name(name): layer
        for name, layer in model.named_modules()
        if hasattr(type(layer), "geo_base") and layer._parameters.get("geo_weight") is not None
    }


def _all_patched(pipe_or_model: Any) -> dict[str, GeometryTerm]:
    models = _all_models(pipe_or_model).items()
    return {_qualified(part, name): layer for part, model in models for name, layer in patched_layers(model).items()}


def _change_class(conv: nn.Module, cls: type[nn.Module]) -> None:
    # Hooks that were taken off again leave the class's `forward` behind as an attribute.
    if getattr(vars(conv).get("forward"), "__func__", None) is type(conv).forward:
        del conv.forward
    conv.__class__ = cls


def _patch(model: nn.Module, layers: list[tuple[nn.Module, Tensor]], config: GeoConvConfig) -> None:
    shared = SharedShift() if config.shift_scope == "model" else None
    tiled_methods = [name for name in TILED_METHODS if hasattr(type(model), name)]
    current = CurrentTile() if tiled_methods else None
    for conv, weight in layers:
        if weight.is_meta and takes_offloaded(conv):
            parameter = add_offloaded(conv, "geo_weight", torch.zeros_like(weight, device="cpu"))
        else:
            parameter = nn.Parameter(weight)
        _change_class(conv, geoconv_class(type(conv)))
        conv.register_parameter("geo_weight", parameter)
        conv.geo_config, conv.geo_scale = config.geopos(), 1.0
        conv.geo_shared_shift, conv.geo_tile = shared, current
    if shared is not None:
        _share_shift(model, shared)
    for name in tiled_methods:
        setattr(model, name, TiledMethod(model, name, current))
    if hasattr(type(model), "save_pretrained"):
        model.save_pretrained = SavePretrained(model)
    setattr(model, _STATE, config)


def _difference(model: nn.Module, present: GeoConvConfig, wanted: GeoConvConfig) -> str:
    """How a patched model differs from one that is patched as `wanted`; empty if it does not.

    Layers are compared, not the targets that mean them, since adapters name theirs one by one.
    """
    if replace(present, components=wanted.components) == wanted:
        return ""
    old, new = asdict(present.geopos()), asdict(wanted.geopos())
    if differing := [key for key in old if old[key] != new[key]]:
        show = [f"{key}={values[key]!r}" for values in (old, new) for key in differing]
        return f"{', '.join(show[: len(differing)])}, not {', '.join(show[len(differing) :])}"
    meant = {name for name, conv in convolutions(model) if reason_not_meant(name, conv, wanted) is None}
    surplus, missing = sorted(patched_layers(model).keys() - meant), [*choose_layers(model, wanted)[0]]
    parts = [f"{word} {shorten(names)}" for word, names in (("with", surplus), ("without", missing)) if names]
    return f"other layers ({', '.join(parts)})" if parts else ""


def shorten(names: Sequence[str]) -> str:
    """Names for a message: the first three, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


class _BeginCall:
    def __init__(self, shared: SharedShift) -> None:
        self.shared = shared

    def __call__(self, module: nn.Module, args: tuple) -> None:
        self.shared.enter()


class _EndCall(_BeginCall):
    def __call__(self, module: nn.Module, args: tuple, output: Any) -> None:
        self.shared.leave()


def _share_shift(model: nn.Module, shared: SharedShift) -> None:
    # Autoencoders are called by part (vae.decode runs vae.decoder), so a part called alone is a model call too.
    for module in (model, *model.children()):
        module.register_forward_pre_hook(_BeginCall(shared))
        module.register_forward_hook(_EndCall(shared), always_call=True)


def _unshare_shift(model: nn.Module) -> None:
    for module in (model, *model.children()):
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(hook, _BeginCall)]:
                del hooks[key]
                module._forward_hooks_always_called.pop(key, None)
