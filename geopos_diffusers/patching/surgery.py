"""Turning the convolutions of an existing model into GeoConvs, and back.

A module's class is swapped for a subclass that adds the geometry term; the module, its parameters and its name stay.
Everything is checked and allocated before the first swap, so a model is patched whole or left as it was.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SurgeryError
from .config import GeoConvConfig
from .frames import CurrentFrames, read_frames
from .layers import geoconv_class, geometry_weight
from .model_call import ModelCall, follow_calls
from .offload import add_offloaded, remove_offloaded, takes_offloaded
from .patched_model import (
    ADAPTERS,
    HOOKS,
    STATE,
    geoconv_models,
    marked_models,
    patched_layers,
    qualified,
    shorten,
)
from .status import GeoConvStatus, geoconv_status
from .stock_saving import SavePipeline, SavePretrained, keep_generation_config
from .targets import check_targets, choose_layers, convolutions, forward_is_hooked, reason_not_meant
from .tiling import TILED_METHODS, CurrentTile, TiledMethod


def apply_geoconv(pipe_or_model: Any, config: GeoConvConfig | None = None) -> GeoConvStatus:
    """Make the convolutions that `config` targets GeoConvs, with geometry weights of zero: outputs stay bitwise equal.

    Args:
        pipe_or_model: a diffusers pipeline or any `nn.Module`. A second call that means the same layers and the same
            geometry channel changes nothing. Layers that are GeoConvs by construction (`GeoConv2d`) are skipped and
            stay the model's own weights: the adapter of a patched model does not hold them.
        config: what to patch and how; None for the defaults.

    Returns:
        What is patched and what is not, with the reason.

    Raises:
        SurgeryError: nothing to patch, a target that names no convolution, a model that is patched otherwise or has a
            part that is patched by itself, or weights that are offloaded where none can be added. The model is left
            as it was.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 3, 3))
        >>> apply_geoconv(model, GeoConvConfig(exclude_modules=["2"])).patched
        ['0']
        >>> model[0]
        PatchedConv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), encoding=product, basis=multilinear, shift_range=0.25)
    """
    config = config or GeoConvConfig()
    plans: list[tuple[nn.Module, list[tuple[nn.Module, Tensor]]]] = []
    for component, model in geoconv_models(pipe_or_model, config).items():
        if (present := vars(model).get(STATE)) is not None:
            if difference := _difference(model, present, config):
                label = component or type(model).__name__
                raise SurgeryError(f"{label} is patched with {difference}; remove_geoconv first")
            continue
        if part := next((name for name, module in model.named_modules() if STATE in vars(module)), None):
            label = component or type(model).__name__
            raise SurgeryError(f"{part} of {label} is patched by itself; remove_geoconv from that part first")
        targets, skipped = choose_layers(model, config)
        check_targets(model, config, targets, skipped)
        plans.append((model, [(conv, geometry_weight(conv, config)) for conv in targets.values()]))
    for model, layers in plans:
        _patch(model, layers, config)
    keep_generation_config(pipe_or_model)
    return geoconv_status(pipe_or_model)


def remove_geoconv(pipe_or_model: Any) -> list[str]:
    """Restore the classes, state-dict keys and outputs that the model had before `apply_geoconv`.

    Returns:
        Names of the layers that were restored; empty where nothing was patched.

    Raises:
        SurgeryError: hooks hold on to the patched `forward` of a transposed convolution, or a layer was parametrized
            after it was patched. The model is left as it was.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> _ = apply_geoconv(model)
        >>> remove_geoconv(model)
        ['0']
        >>> print(*model.state_dict())
        0.weight 0.bias
    """
    models = marked_models(pipe_or_model)
    for component, model in models.items():
        for name, layer in patched_layers(model).items():
            label = qualified(component, name)
            if forward_is_hooked(layer):
                raise SurgeryError(f"hooks (offload, casting) were put on {label} after patching; remove them first")
            if "geo_base" not in vars(type(layer)):
                made = f"{label} a {type(layer).__name__}"
                raise SurgeryError(f"something (a parametrization) made {made} after patching; remove that first")
    removed = []
    for component, model in models.items():
        for name, layer in patched_layers(model).items():
            remove_offloaded(layer, "geo_weight")
            _change_class(layer, type(layer).geo_base)
            del layer._parameters["geo_weight"]
            del layer.geo_config, layer.geo_scale, layer.geo_call, layer.geo_tile
            vars(layer).pop("geo_frames", None)
            removed.append(qualified(component, name))
        for handle in getattr(model, HOOKS):
            handle.remove()
        for name in (*TILED_METHODS, "save_pretrained", ADAPTERS, HOOKS):
            vars(model).pop(name, None)
        delattr(model, STATE)
    if isinstance(vars(pipe_or_model).get("save_pretrained"), SavePipeline):
        del pipe_or_model.save_pretrained
    return removed


def _change_class(conv: nn.Module, cls: type[nn.Module]) -> None:
    # Hooks that were taken off again leave the class's `forward` behind as an attribute.
    if getattr(vars(conv).get("forward"), "__func__", None) is type(conv).forward:
        del conv.forward
    conv.__class__ = cls


def _patch(model: nn.Module, layers: list[tuple[nn.Module, Tensor]], config: GeoConvConfig) -> None:
    call = ModelCall()
    tiled_methods = [name for name in TILED_METHODS if hasattr(type(model), name)]
    current = CurrentTile() if tiled_methods else None
    frames = CurrentFrames(read_frames(config.default_frame)) if config.default_frame else None
    for conv, weight in layers:
        if weight.is_meta and takes_offloaded(conv):
            parameter = add_offloaded(conv, "geo_weight", torch.zeros_like(weight, device="cpu"))
        else:
            parameter = nn.Parameter(weight)
        _change_class(conv, geoconv_class(type(conv)))
        conv.register_parameter("geo_weight", parameter)
        conv.geo_config, conv.geo_scale = config.geopos(), 1.0
        conv.geo_call, conv.geo_tile = call, current
        if frames is not None:
            conv.geo_frames = frames
    setattr(model, HOOKS, follow_calls(model, call))
    for name in tiled_methods:
        setattr(model, name, TiledMethod(model, name, current))
    if hasattr(type(model), "save_pretrained"):
        model.save_pretrained = SavePretrained(model)
    setattr(model, STATE, config)


def _difference(model: nn.Module, present: GeoConvConfig, wanted: GeoConvConfig) -> str:
    """How a patched model differs from one that is patched as `wanted`; empty if it does not.

    Layers are compared, not the targets that mean them, since adapters name theirs one by one.
    """
    if replace(present, components=wanted.components) == wanted:
        return ""
    if difference := present.difference(wanted):
        return difference
    meant = {name for name, conv in convolutions(model) if reason_not_meant(name, conv, wanted) is None}
    surplus, missing = sorted(patched_layers(model).keys() - meant), [*choose_layers(model, wanted)[0]]
    parts = [f"{word} {shorten(names)}" for word, names in (("with", surplus), ("without", missing)) if names]
    return f"other layers ({', '.join(parts)})" if parts else ""
