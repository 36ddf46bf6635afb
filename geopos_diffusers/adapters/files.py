"""Adapter files: the geometry weights of a patched model as safetensors, with the config and a model card.

    geoconv_weights.safetensors   one tensor a layer, "<component>.<layer>.geo_weight"; the config in its metadata
    geoconv_config.json           the same config, to read
    README.md                     model card

The one safetensors file suffices. Nothing here ever unpickles.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__
from ..errors import AdapterError
from ..files import PACKAGED, atomic_path, write_text
from ..patching.config import GeoConvConfig
from ..patching.offload import whole
from ..patching.patched_model import geometry_models, named_adapters, present_config
from ..patching.status import geoconv_status
from ..patching.stock_saving import ADAPTER_FOLDERS
from .base_model import BASE_KEYS, base_record, component_of
from .model_card import model_card
from .named_adapters import adapter_tensors, check_adapter_names

WEIGHTS_NAME = "geoconv_weights.safetensors"
CONFIG_NAME = "geoconv_config.json"
CARD_NAME = "README.md"
# What is fetched from a Hub repository: an adapter alone, within a model, or within the components of a pipeline.
HUB_FILES = (
    WEIGHTS_NAME,
    *(f"{folder}/{WEIGHTS_NAME}" for folder in ADAPTER_FOLDERS),
    *(f"*/{folder}/{WEIGHTS_NAME}" for folder in ADAPTER_FOLDERS),
)
_METADATA_KEY = "geoconv_config"


def save_geoconv_weights(
    pipe_or_model: Any,
    save_directory: str | os.PathLike,
    dtype: torch.dtype | None = None,
    card: dict[str, Any] | None = None,
    adapter_name: str | None = None,
) -> Path:
    """Write the adapter of a patched pipeline or model to a folder; other files in it are left alone.

    Args:
        dtype: of the saved weights; None as they are. float16 halves the file.
        card: facts for the model card, by heading ("Base model", "Training data", ...).
        adapter_name: which of several adapters; None for what is active, a mix as the one adapter that it amounts to.

    Returns:
        The path of the safetensors file.

    Raises:
        AdapterError: there are no geometry weights or no adapter of that name, layers differ in their geometry
            channels, PEFT keeps copies of one, or a weight is not finite.
        OSError: the folder cannot be written; an adapter that was there before stays whole.

    Example:
        >>> from geopos_diffusers import apply_geoconv
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 3, 3))
        >>> _ = apply_geoconv(model)
        >>> path = save_geoconv_weights(model, "my-adapter", card={"Training": "none"})
        >>> sorted(file.name for file in path.parent.iterdir())
        ['README.md', 'geoconv_config.json', 'geoconv_weights.safetensors']
    """
    from safetensors.torch import save_file

    models = geometry_models(pipe_or_model)
    if not models:
        raise AdapterError("the model is not patched: there are no geometry weights to save")
    if adapter_name is not None:
        check_adapter_names(models.values(), [adapter_name])
        models = {part: model for part, model in models.items() if adapter_name in named_adapters(model).names}
    config = _one_config(models)
    names = {component: component or component_of(model) for component, model in models.items()}
    tensors = {}
    for component, model in models.items():
        for name, weight in adapter_tensors(model, adapter_name).items():
            tensor = whole(weight).detach().to("cpu", dtype or weight.dtype).contiguous()
            if not torch.isfinite(tensor.float()).all():
                raise AdapterError(f"{name} holds values that are not finite in {tensor.dtype}; nothing was saved")
            tensors[f"{names[component]}.{name}"] = tensor
    if copied := sorted(name.partition(".original_module")[0] for name in tensors if ".original_module." in name):
        raise AdapterError(
            f"PEFT keeps copies of {copied[0]}, each with geometry weights; leave patched layers out of modules_to_save"
        )
    status = geoconv_status(pipe_or_model)
    layers = {name.partition(".")[2].removesuffix(".geo_weight") for name in tensors}
    values = config.to_dict() | {
        "target_modules": sorted(layers),
        "exclude_modules": None,
        "geopos_diffusers_version": __version__,
        **base_record(pipe_or_model, {names[component]: model for component, model in models.items()}),
    }
    text = json.dumps(values, indent=2)
    directory = Path(save_directory)
    if directory.is_file():
        raise AdapterError(f"{directory} is a file; an adapter is saved to a folder")
    with atomic_path(directory / WEIGHTS_NAME) as temporary:
        # One entry alone: safetensors writes several in random order, and equal adapters shall be equal files.
        save_file(tensors, temporary, metadata={_METADATA_KEY: text})
    write_text(directory / CONFIG_NAME, text + "\n")
    write_text(directory / CARD_NAME, model_card(values, status, card or {}))
    return directory / WEIGHTS_NAME


def _one_config(models: dict[str, nn.Module]) -> GeoConvConfig:
    """The config that all models share, since a file holds one."""
    configs = {component: present_config(model) for component, model in models.items()}
    first = next(iter(configs.values()))
    if first is None or any(config is None or first.difference(config) for config in configs.values()):
        raise AdapterError("the GeoConvs differ in their geometry channels: one adapter holds one; save the state_dict")
    return first


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
        reason = " ".join(str(error).split())  # which quotes the file, line breaks and all
        raise AdapterError(f"{path} is not a readable safetensors file: {reason}") from error
    if text is None:
        raise AdapterError(f"{path} holds no GeoConv config: not a GeoConv adapter")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{path}: its GeoConv config is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise AdapterError(f"{path}: its GeoConv config is not a JSON object")
    geometry_config(values)
    for name, tensor in tensors.items():
        if tensor.dtype not in _WEIGHT_DTYPES or not torch.isfinite(tensor.float()).all():
            raise AdapterError(f"{path}: {name!r} ({tensor.dtype}) does not hold finite floating-point weights")
    return tensors, values


def find_adapters(name_or_path: str | os.PathLike, revision: str | None = None) -> list[tuple[Path, str | None]]:
    """Paths of an adapter's safetensors files, fetched from the Hub where `name_or_path` is no local path.

    A packaged adapter goes by its name. One file, or one for each patched component of a saved pipeline, then with the
    component's name.

    Raises:
        AdapterError: nothing of that name is there.
    """
    path = Path(name_or_path)
    if path.is_file():
        return [(path, None)]
    if not path.is_dir() and (PACKAGED / path / WEIGHTS_NAME).is_file():
        path = PACKAGED / path
    if not path.is_dir():
        path = _download(os.fspath(name_or_path), revision)
    if (file := _adapter_in(path, ("", *ADAPTER_FOLDERS))) is not None:
        return [(file, None)]
    parts = [(_adapter_in(component, ADAPTER_FOLDERS), component.name) for component in sorted(path.iterdir())]
    found: list[tuple[Path, str | None]] = [(file, name) for file, name in parts if file is not None]
    if not found:
        raise AdapterError(f"{path} has no {WEIGHTS_NAME}")
    return found


def _adapter_in(folder: Path, names: Sequence[str]) -> Path | None:
    files = (folder / name / WEIGHTS_NAME for name in names)
    return next((file for file in files if file.is_file()), None)


def _download(name: str, revision: str | None) -> Path:
    """The adapter files of a Hub repository, in a local folder."""
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise AdapterError(f"no adapter at {name}: neither a folder, nor a safetensors file, nor a Hub id owner/name")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # the Hub's client raises many unrelated types for "not there" and "no network"
        raise AdapterError(
            f"no adapter at {name}: no such folder, and the Hub gave none ({type(error).__name__})"
        ) from error


_WEIGHT_DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
)


_NO_GEOMETRY = ("geopos_diffusers_version", "target_modules", "exclude_modules", *BASE_KEYS)


def geometry_config(values: dict[str, Any]) -> GeoConvConfig:
    """An adapter's config but for its targets: which layers it has, the names of its tensors say.

    Files of earlier releases hold the regular expressions of whoever made them, and matching one can take for ever.
    """
    return GeoConvConfig.from_dict({name: value for name, value in values.items() if name not in _NO_GEOMETRY})


def push_geoconv_to_hub(pipe_or_model: Any, repo_id: str, *, private: bool = False, **save_options: Any) -> str:
    """Save the adapter and upload it to the Hub; needs a login. Returns the address of the commit.

    Args:
        repo_id: "owner/name"; made if it does not exist, private or not.
        save_options: further arguments of `save_geoconv_weights`.

    Raises:
        AdapterError: as `save_geoconv_weights`; or no login, no network, or a refusal of the Hub. A repository that was
            made for the adapter is removed again.

    Example:
        >>> from torch import nn
        >>> push_geoconv_to_hub(nn.Conv2d(3, 8, 3), "me/my-adapter")
        Traceback (most recent call last):
        geopos_diffusers.errors.AdapterError: the model is not patched: there are no geometry weights to save
    """
    import tempfile

    from huggingface_hub import HfApi

    api, made = HfApi(), False
    with tempfile.TemporaryDirectory() as directory:
        save_geoconv_weights(pipe_or_model, directory, **save_options)
        try:
            if not api.repo_exists(repo_id):
                api.create_repo(repo_id, private=private)
                made = True
            return api.upload_folder(
                repo_id=repo_id, folder_path=directory, commit_message="Upload GeoConv adapter"
            ).commit_url
        except Exception as error:  # the Hub's client raises many unrelated types for no network, no login, no right
            if made:
                with suppress(Exception):
                    api.delete_repo(repo_id)
            reason = " ".join(str(error).split()) or type(error).__name__
            raise AdapterError(f"cannot upload the adapter to {repo_id}: {reason[:300]}") from error
