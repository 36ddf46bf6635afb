"""The base that an adapter was trained beside: recorded when it is saved, compared when it is loaded."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from torch import nn

from ..patching.targets import CONVOLUTIONS, base_layers

BASE_KEYS = ("base_models", "base_classes", "base_fingerprints")  # of an adapter's config, each by component
# Classes that diffusers builds from the weights of another, whose adapters they take.
_BUILT_FROM = {"UNetMotionModel": "UNet2DConditionModel"}
# Parts that IP-Adapters add, and the layers that `fuse_qkv_projections` adds to those that it fuses.
_ADDED_PARTS = re.compile(r".*\.processor\..*|.*encoder_hid_proj\..*|image_proj\..*|.*\.to_(qkv|kv|added_qkv)")


def base_record(pipe_or_model: Any, models: dict[str, nn.Module]) -> dict[str, dict[str, str | None]]:
    """What an adapter's config says of its base: name, class and fingerprint of each component's model."""
    return {
        "base_models": {part: base_name(pipe_or_model, model) for part, model in models.items()},
        "base_classes": {part: class_name(model) for part, model in models.items()},
        "base_fingerprints": {part: fingerprint(model) for part, model in models.items()},
    }


def fingerprint(model: nn.Module) -> str:
    """16 hexadecimal digits of the names and sizes of a model's convolutions and linear layers.

    Patching, LoRA, fused projections, quantisation, offloading and sharding do not change them. Weights are not read.
    """
    lines = []
    for name, layer in base_layers(model, (*CONVOLUTIONS, nn.Linear)):
        if isinstance(layer, nn.Linear):
            sizes = (layer.out_features, layer.in_features)
        else:
            sizes = (layer.out_channels, layer.in_channels, *layer.kernel_size, layer.groups)
        if not _ADDED_PARTS.fullmatch(name):
            lines.append(f"{name} {sizes}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def base_name(pipe_or_model: Any, model: nn.Module) -> str | None:
    """The Hub id that a model was loaded from, or the name of the folder; None where diffusers noted neither.

    Of a path only the last part is told, not where on a machine it lies.
    """
    for source in (pipe_or_model, model):
        name = getattr(getattr(source, "config", None), "_name_or_path", None)
        if not isinstance(name, (str, os.PathLike)) or not os.fspath(name):
            continue
        path = Path(name)
        if cached := re.search(r"models--([\w.-]+?)--([\w.-]+)", os.fspath(name), re.ASCII):
            return "/".join(cached.groups())
        if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", os.fspath(name), re.ASCII) and not path.exists():
            return os.fspath(name)
        in_pipeline = (path.parent / "model_index.json").is_file()
        return (path.parent if in_pipeline else path).name or None
    return None


def accepts_class(model: nn.Module, recorded: str) -> bool:
    """Whether an adapter of the class `recorded` is meant for a model: of that class, derived or built from it."""
    return recorded in {cls.__name__ for cls in type(model).__mro__} | {_BUILT_FROM.get(class_name(model))}


def class_name(model: nn.Module) -> str:
    """The model's class, without those that patching it (a bare convolution) and FSDP2 put before it.

    FSDP2's is called "FSDP" and the name.
    """
    cls = getattr(type(model), "geo_base", type(model))
    return next(base.__name__ for base in cls.__mro__ if not base.__name__.startswith("FSDP"))


def component_of(model: nn.Module) -> str:
    """The name that pipelines give to a model of this class."""
    name = class_name(model)
    for part, component in (("UNet", "unet"), ("Transformer", "transformer"), ("Autoencoder", "vae"), ("VQ", "vae")):
        if part in name:
            return component
    return "model"
