"""Adapter files: the geometry weights of a patched model as safetensors, with the config and a model card.

    geoconv_weights.safetensors   one tensor a layer, "<component>.<layer>.geo_weight"; the config in its metadata
    geoconv_config.json           the same config, to read
    README.md                     model card

The one safetensors file suffices. Nothing here ever unpickles.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import __version__
from .config import GeoConvConfig
from .errors import AdapterError, SurgeryError
from .files import atomic_path, write_text
from .model_card import model_card
from .surgery import (
    GeoConvStatus,
    apply_geoconv,
    geoconv_models,
    geoconv_parameters,
    geoconv_status,
    marked_models,
    remove_geoconv,
)

WEIGHTS_NAME = "geoconv_weights.safetensors"
CONFIG_NAME = "geoconv_config.json"
CARD_NAME = "README.md"
_METADATA_KEY = "geoconv_config"


def save_geoconv_weights(
    pipe_or_model: Any,
    save_directory: str | os.PathLike,
    dtype: torch.dtype | None = None,
    card: dict[str, Any] | None = None,
) -> Path:
    """Write the adapter of a patched pipeline or model to a folder; other files in it are left alone.

    Args:
        dtype: of the saved weights; None as they are. float16 halves the file.
        card: facts for the model card, by heading ("Base model", "Training data", ...).

    Returns:
        The path of the safetensors file.

    Raises:
        AdapterError: the model is not patched, or a weight is not finite.
        OSError: the folder cannot be written; an adapter that was there before stays whole.
    """
    from safetensors.torch import save_file

    models = marked_models(pipe_or_model)
    if not models:
        raise AdapterError("the model is not patched: there are no geometry weights to save")
    names = {component: component or _component_of(model) for component, model in models.items()}
    tensors = {}
    for component, model in models.items():
        for name, weight in geoconv_parameters(model).items():
            tensor = weight.detach().to("cpu", dtype or weight.dtype).contiguous()
            if not torch.isfinite(tensor).all():
                raise AdapterError(f"{name} holds values that are not finite in {tensor.dtype}; nothing was saved")
            tensors[f"{names[component]}.{name}"] = tensor
    status = geoconv_status(pipe_or_model)
    values = status.config.to_dict() | {
        "geopos_diffusers_version": __version__,
        "base_classes": {names[component]: type(model).__name__ for component, model in models.items()},
    }
    text = json.dumps(values, indent=2)
    directory = Path(save_directory)
    if directory.is_file():
        raise AdapterError(f"{directory} is a file; an adapter is saved to a folder")
    with atomic_path(directory / WEIGHTS_NAME) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt", _METADATA_KEY: text})
    write_text(directory / CONFIG_NAME, text + "\n")
    write_text(directory / CARD_NAME, model_card(values, status, card or {}))
    return directory / WEIGHTS_NAME


def load_geoconv_weights(
    pipe_or_model: Any, name_or_path: str | os.PathLike, *, revision: str | None = None
) -> GeoConvStatus:
    """Patch a pipeline or model as an adapter says and fill in its weights.

    Args:
        pipe_or_model: unpatched, or patched with the adapter's own config (its weights are then replaced).
        name_or_path: an adapter's folder, its safetensors file, or a Hub id "owner/name".
        revision: branch, tag or commit on the Hub.

    Raises:
        AdapterError: files that are missing, damaged or foreign; weights for layers that the model lacks or has in
            another shape, or layers that the file lacks. The model is left as it was.
        SurgeryError: the model is patched with another config.
    """
    path = find_adapter(name_or_path, revision)
    tensors, values = read_adapter(path)
    config = GeoConvConfig.from_dict({key: value for key, value in values.items() if key not in _EXTRA_KEYS})
    by_component = _by_component(tensors, path)
    models = _match_components(pipe_or_model, by_component, values.get("base_classes"), path)
    newly_patched = [model for model in models.values() if not marked_models(model)]
    try:
        for component, model in models.items():
            try:
                apply_geoconv(model, config)
            except SurgeryError as error:
                if model not in newly_patched:
                    raise
                raise AdapterError(f"{path} does not fit {type(model).__name__}: {error}") from error
            _check_fit(geoconv_parameters(model), by_component[component], type(model).__name__, path)
    except Exception:
        for model in newly_patched:
            remove_geoconv(model)
        raise
    with torch.no_grad():
        for component, model in models.items():
            for name, parameter in geoconv_parameters(model).items():
                parameter.copy_(by_component[component][name])
    return geoconv_status(pipe_or_model)


def push_geoconv_to_hub(pipe_or_model: Any, repo_id: str, *, private: bool = False, **save_options: Any) -> str:
    """Save the adapter and upload it to the Hub; needs a login. Returns the address of the commit."""
    import tempfile

    from huggingface_hub import HfApi

    api = HfApi()
    with tempfile.TemporaryDirectory() as directory:
        save_geoconv_weights(pipe_or_model, directory, **save_options)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return api.upload_folder(
            repo_id=repo_id, folder_path=directory, commit_message="Upload GeoConv adapter"
        ).commit_url


def find_adapter(name_or_path: str | os.PathLike, revision: str | None = None) -> Path:
    """Path of an adapter's safetensors file, fetched from the Hub where `name_or_path` is no local path.

    Raises:
        AdapterError: nothing of that name is there.
    """
    path = Path(name_or_path)
    if path.is_dir():
        if (path / WEIGHTS_NAME).is_file():
            return path / WEIGHTS_NAME
        raise AdapterError(f"{path} has no {WEIGHTS_NAME}")
    if path.is_file():
        return path
    name = os.fspath(name_or_path)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise AdapterError(f"no adapter at {name}: neither a folder, nor a safetensors file, nor a Hub id owner/name")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, WEIGHTS_NAME, revision=revision))
    except Exception as error:  # the Hub's client raises many unrelated types for "not there" and "no network"
        raise AdapterError(
            f"no adapter at {name}: no such folder, and the Hub gave none ({type(error).__name__})"
        ) from error


def read_adapter(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and config of an adapter file, checked.

    Raises:
        AdapterError: not a whole safetensors file, no GeoConv config, or weights that are not finite numbers.
        ConfigError: a config of another version or with bad values.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_METADATA_KEY)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError, OverflowError) as error:
        raise AdapterError(f"{path} is not a readable safetensors file: {error}") from error
    if text is None:
        raise AdapterError(f"{path} holds no GeoConv config: not a GeoConv adapter")
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise AdapterError(f"{path}: its GeoConv config is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise AdapterError(f"{path}: its GeoConv config is not a JSON object")
    GeoConvConfig.from_dict({key: value for key, value in values.items() if key not in _EXTRA_KEYS})
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not torch.isfinite(tensor.float()).all():
            raise AdapterError(f"{path}: {name} ({tensor.dtype}) does not hold finite floating-point weights")
    return tensors, values


_EXTRA_KEYS = ("geopos_diffusers_version", "base_classes")


def _component_of(model: nn.Module) -> str:
    """The name that pipelines give to a model of this class."""
    name = type(model).__name__
    for part, component in (("UNet", "unet"), ("Transformer", "transformer"), ("Autoencoder", "vae"), ("VQ", "vae")):
        if part in name:
            return component
    return "model"


def _by_component(tensors: dict[str, Tensor], path: Path) -> dict[str, dict[str, Tensor]]:
    by_component: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        component, _, name = key.partition(".")
        if not component or not name.endswith(".geo_weight"):
            raise AdapterError(f"{path} holds {key!r}: not a geometry weight of a component")
        by_component.setdefault(component, {})[name] = tensor
    if not by_component:
        raise AdapterError(f"{path} holds no weights")
    return by_component


def _match_components(
    pipe_or_model: Any, by_component: dict[str, dict[str, Tensor]], base_classes: Any, path: Path
) -> dict[str, nn.Module]:
    """The model that each of the adapter's components goes to."""
    if isinstance(pipe_or_model, nn.Module):
        model = geoconv_models(pipe_or_model, GeoConvConfig())[""]
        base_classes = base_classes if isinstance(base_classes, dict) else {}
        same = [component for component in by_component if base_classes.get(component) == type(model).__name__]
        fitting = same or ([_component_of(model)] if _component_of(model) in by_component else list(by_component))
        if len(fitting) != 1:
            parts = ", ".join(by_component)
            raise AdapterError(
                f"{path} holds weights for {parts}; load it into a pipeline, not a {type(model).__name__}"
            )
        return {fitting[0]: model}
    try:
        return geoconv_models(pipe_or_model, GeoConvConfig(components=tuple(by_component)))
    except SurgeryError as error:
        raise AdapterError(f"{path} does not fit: {error}") from error


def _check_fit(parameters: dict[str, nn.Parameter], tensors: dict[str, Tensor], label: str, path: Path) -> None:
    problems = []
    for title, names in (
        ("layers not in the model", sorted(tensors.keys() - parameters.keys())),
        ("layers missing from the file", sorted(parameters.keys() - tensors.keys())),
        (
            "layers of another shape",
            [
                f"{name} {list(tensors[name].shape)} for {list(parameters[name].shape)}"
                for name in sorted(tensors.keys() & parameters.keys())
                if tensors[name].shape != parameters[name].shape
            ],
        ),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            problems.append(f"{title}: {', '.join(name.replace('.geo_weight', '') for name in names[:3])}{more}")
    if problems:
        raise AdapterError(f"{path} does not fit {label}; {'; '.join(problems)}")
