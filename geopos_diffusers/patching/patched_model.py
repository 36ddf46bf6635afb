"""Reading a patched model: its parts, its GeoConvs, and the tensors that hold their geometry weights."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import SurgeryError
from .config import GeoConvConfig
from .layers import GeometryTerm
from .offload import group_offload_kinds, reshard, stored_weight
from .targets import canonical_name

DENOISERS = ("unet", "transformer", "transformer_2", "prior", "decoder")


STATE = "_geoconv_config"


ADAPTERS = "_geoconv_adapters"  # see named_adapters.py


def geoconv_models(pipe_or_model: Any, config: GeoConvConfig) -> dict[str, nn.Module]:
    """The models that `config` speaks of, by component name; "" for a model given by itself.

    Raises:
        SurgeryError: a component does not exist or is no model, or a pipeline has no denoiser.
    """
    if isinstance(pipe_or_model, nn.Module):
        return all_models(pipe_or_model)
    models = all_models(pipe_or_model)
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
    models = all_models(pipe_or_model)
    return {component: model for component, model in models.items() if hasattr(model, STATE)}


def patched_layers(model: nn.Module) -> dict[str, GeometryTerm]:
    """The GeoConvs of one model by canonical name."""
    return {
        canonical_name(name): layer
        for name, layer in model.named_modules()
        if hasattr(type(layer), "geo_base") and layer._parameters.get("geo_weight") is not None
    }


def geoconv_parameters(pipe_or_model: Any) -> dict[str, nn.Parameter]:
    """The geometry weights by name ("unet.conv_in.geo_weight" in a pipeline, "conv_in.geo_weight" in a model)."""
    return {
        f"{qualified(component, name)}.geo_weight": layer.geo_weight
        for component, model in all_models(pipe_or_model).items()
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


def all_models(pipe_or_model: Any) -> dict[str, nn.Module]:
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


def all_patched(pipe_or_model: Any) -> dict[str, GeometryTerm]:
    models = all_models(pipe_or_model).items()
    return {qualified(part, name): layer for part, model in models for name, layer in patched_layers(model).items()}


def qualified(component: str, name: str) -> str:
    return f"{component}.{name}" if component else name


def shorten(names: Sequence[str]) -> str:
    """Names for a message: the first three, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
