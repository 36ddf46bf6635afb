"""Reading a model: its parts, its GeoConvs, their adapters, and the tensors that hold their geometry weights."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn

from ..errors import SurgeryError
from .config import GeoConvConfig
from .frames import CurrentFrames
from .layers import GeometryTerm
from .offload import group_offload_kinds, reshard, stored_weight
from .targets import WRAPPERS, canonical_modules, convolutions

DENOISERS = ("unet", "transformer", "transformer_2", "prior", "decoder")
STATE = "_geoconv_config"  # attribute of a patched model: its GeoConvConfig
ADAPTERS = "_geoconv_adapters"  # attribute of a model: its NamedAdapters
HOOKS = "_geoconv_hooks"  # attribute of a patched model: handles of the hooks that follow its calls
DEFAULT_ADAPTER = "default"


@dataclass
class NamedAdapters:
    """The adapters that one model keeps; `adapters/named_adapters.py` changes them.

    Attributes:
        active: weight of each adapter in the present mix.
        stored: geometry weights by adapter and layer, of all but the one that lives in the layers.
    """

    active: dict[str, float] = field(default_factory=lambda: {DEFAULT_ADAPTER: 1.0})
    stored: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def living(self) -> str | None:
        """The adapter whose weights are the layers' own; None while a mix is active."""
        return next(iter(self.active)) if list(self.active.values()) == [1.0] else None

    @property
    def names(self) -> list[str]:
        return sorted({*self.stored, *([self.living] if self.living else [])})


def geoconv_models(pipe_or_model: Any, config: GeoConvConfig) -> dict[str, nn.Module]:
    """The models that `config` speaks of, by component name; "" for a model given by itself.

    By default they are the denoisers, without those that have no convolution beside others that have some.

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
        chosen = distinct(chosen)
        return {name: model for name, model in chosen.items() if any(convolutions(model))} or chosen
    for name in config.components:
        if name not in models:
            known = ", ".join(models)
            raise SurgeryError(f"{type(pipe_or_model).__name__} has no model {name!r}; its models are {known}")
    return distinct({name: models[name] for name in config.components})


def marked_models(pipe_or_model: Any) -> dict[str, nn.Module]:
    """The models of a pipeline that are patched, by component name; "" for a model given by itself."""
    models = all_models(pipe_or_model)
    return {component: model for component, model in distinct(models).items() if STATE in vars(model)}


def geometry_models(pipe_or_model: Any) -> dict[str, nn.Module]:
    """The models of a pipeline that have geometry weights, patched or built in; "" for a model given by itself."""
    models = distinct(all_models(pipe_or_model))
    return {component: model for component, model in models.items() if geometry_layers(model)}


def geometry_layers(model: nn.Module) -> dict[str, GeometryTerm]:
    """The GeoConvs whose weights are a model's adapter, by canonical name.

    In a patched model they are the convolutions that were patched; GeoConvs that it was built with are its own weights
    there, as its convolutions are. In any other network they are the layers that it was built with.
    """
    return patched_layers(model) if STATE in vars(model) else built_layers(model)


def patched_layers(model: nn.Module) -> dict[str, GeometryTerm]:
    """The convolutions of one model that `apply_geoconv` made GeoConvs, by canonical name."""
    return {name: layer for name, layer in _geoconvs(model).items() if hasattr(type(layer), "geo_base")}


def built_layers(model: nn.Module) -> dict[str, GeometryTerm]:
    """The layers of one model that were built as GeoConvs (`GeoConv2d(...)`), by canonical name."""
    return {name: layer for name, layer in _geoconvs(model).items() if not hasattr(type(layer), "geo_base")}


def _geoconvs(model: nn.Module) -> dict[str, GeometryTerm]:
    return {
        name: layer
        for name, layer in canonical_modules(model)
        if isinstance(layer, GeometryTerm) and layer._parameters.get("geo_weight") is not None
    }


def present_config(model: nn.Module) -> GeoConvConfig | None:
    """The config of a patched model, or what the layers of a network of GeoConvs share; None where they differ."""
    if STATE in vars(model):
        return vars(model)[STATE]
    configs = {layer.geo_config for layer in built_layers(model).values()}
    return GeoConvConfig(**asdict(configs.pop())) if len(configs) == 1 else None


def frames_holder(model: nn.Module) -> CurrentFrames | None:
    """What the layers of a model read their frames from; None where none were ever set."""
    return next((layer.geo_frames for layer in geometry_layers(model).values()), None)


def named_adapters(model: nn.Module) -> NamedAdapters:
    """The adapters of a model; the one under the default name alone, where none was loaded by name."""
    return vars(model).get(ADAPTERS) or NamedAdapters()


def geoconv_parameters(pipe_or_model: Any) -> dict[str, nn.Parameter]:
    """The geometry weights by name ("unet.conv_in.geo_weight" in a pipeline, "conv_in.geo_weight" in a model).

    Example:
        >>> import torch
        >>> from geopos_diffusers import apply_geoconv
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 3, 3)).requires_grad_(False)
        >>> _ = apply_geoconv(model)
        >>> weights = geoconv_parameters(model)
        >>> {name: tuple(weight.shape) for name, weight in weights.items()}
        {'0.geo_weight': (8, 4), '2.geo_weight': (3, 4)}
        >>> optimizer = torch.optim.AdamW(weights.values(), lr=1e-3)
    """
    return {f"{name}.geo_weight": layer.geo_weight for name, layer in all_geometry_layers(pipe_or_model).items()}


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
    return {f"{name}.geo_weight": stored_weight(layer, "geo_weight") for name, layer in geometry_layers(model).items()}


def all_models(pipe_or_model: Any) -> dict[str, nn.Module]:
    if isinstance(pipe_or_model, nn.Module):
        return {"": _unwrap(pipe_or_model)}
    components = getattr(pipe_or_model, "components", None)
    if not isinstance(components, dict):
        raise SurgeryError(f"expected a diffusers pipeline or a torch module; got {type(pipe_or_model).__name__}")
    return {name: _unwrap(part) for name, part in components.items() if isinstance(part, nn.Module)}


def distinct(models: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Each model once, under the first of its names."""
    found: dict[nn.Module, str] = {}
    for name, model in models.items():
        found.setdefault(model, name)
    return {name: model for model, name in found.items()}


def _unwrap(model: nn.Module) -> nn.Module:
    """The model in the wrappers of torch and PEFT, whose attributes may look like the model's own."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif held := [part for name, part in model.named_children() if name in WRAPPERS]:
            (model,) = held
        elif hasattr(type(model), "get_base_model"):  # PeftModel
            model = model.get_base_model()
        else:
            return model


def all_geometry_layers(pipe_or_model: Any) -> dict[str, GeometryTerm]:
    models = geometry_models(pipe_or_model).items()
    return {qualified(part, name): layer for part, model in models for name, layer in geometry_layers(model).items()}


def qualified(component: str, name: str) -> str:
    return f"{component}.{name}" if component else name


def shorten(names: Sequence[str]) -> str:
    """Names for a message: the first three, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
