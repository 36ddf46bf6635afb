"""LoRA on any model of a pipeline: added, saved under names that diffusers reads, and loaded again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusers.loaders import PeftAdapterMixin
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import AdapterError, ConfigError
from ..optional_packages import optional_import
from .part_options import PartArguments

LORA_NAME = "pytorch_lora_weights.safetensors"  # as diffusers names it
ADAPTER = "default"


def add_lora(model: nn.Module, arguments: PartArguments) -> None:
    """Add LoRA factors that change nothing yet, and freeze everything else.

    Raises:
        ConfigError: no layer, or one that LoRA cannot be added to, has such a name.
        MissingDependencyError: peft is not installed.
    """
    with optional_import("LoRA", "train"):
        from peft import LoraConfig
    targets = arguments.lora_targets(model)
    config = LoraConfig(
        r=arguments.lora_rank,
        lora_alpha=arguments.lora_alpha or arguments.lora_rank,
        target_modules=targets,
        init_lora_weights="gaussian",
    )
    try:
        _add(model, config)
    except ValueError as error:
        raise ConfigError(f"LoRA cannot be added to {', '.join(targets)}: {error}") from error


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """The factors by PEFT's names. diffusers' older ones are of attention alone; it reads no mix of both."""
    from peft.utils import get_peft_model_state_dict

    return get_peft_model_state_dict(model, adapter_name=ADAPTER)


def lora_metadata(model: Any) -> dict[str, Any]:
    """The configuration of the factors, without which alpha would be lost on loading."""
    return model.peft_config[ADAPTER].to_dict()


def save_lora(owner: Any, components: Sequence[str], folder: Path) -> None:
    """Write the LoRA of `owner`'s models in one file, as the one of its pipeline, or in the same format where that has
    none for them (autoencoders, ControlNets, unconditional UNets)."""
    models = {name: getattr(owner, name) for name in components}
    if set(components) <= set(getattr(owner, "_lora_loadable_modules", ())):
        layers = {f"{name}_lora_layers": lora_state(model) for name, model in models.items()}
        layers |= {f"{name}_lora_adapter_metadata": lora_metadata(model) for name, model in models.items()}
        type(owner).save_lora_weights(folder, **layers)
        return
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    known: dict[str, Any] = {}
    for prefix, model in models.items():
        tensors |= {f"{prefix}.{name}": value.detach().contiguous() for name, value in lora_state(model).items()}
        known |= {f"{prefix}.{name}": value for name, value in lora_metadata(model).items()}
    text = json.dumps(known, indent=2, sort_keys=True, default=sorted)
    save_file(tensors, folder / LORA_NAME, metadata={"format": "pt", LORA_ADAPTER_METADATA_KEY: text})


def load_lora(owner: Any, component: str, folder: Path) -> None:
    """Put a LoRA that `save_lora` wrote, by PEFT's or diffusers' older names, into a fresh model.

    Raises:
        AdapterError: the file is damaged, or its factors do not fit the model.
    """
    model, file = getattr(owner, component), folder / LORA_NAME
    if component in getattr(owner, "_lora_loadable_modules", ()):
        owner.load_lora_weights(folder, use_safetensors=True)
        return
    from peft import LoraConfig, set_peft_model_state_dict

    try:
        with safe_open(file, "pt") as opened:
            config = json.loads((opened.metadata() or {})[LORA_ADAPTER_METADATA_KEY])
        tensors = load_file(file)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise AdapterError(f"{file} is damaged or no LoRA with its configuration: {error}") from error
    prefix = f"{component}."
    _add(model, LoraConfig(**{name.removeprefix(prefix): value for name, value in config.items()}))
    given = convert_unet_state_dict_to_peft({name.removeprefix(prefix): value for name, value in tensors.items()})
    if lora_state(model).keys() != given.keys():
        raise AdapterError(f"{file} holds factors of other layers than this {type(model).__name__} has")
    set_peft_model_state_dict(model, given, adapter_name=ADAPTER)


def _add(model: Any, config: Any) -> None:
    if isinstance(model, PeftAdapterMixin):
        model.add_adapter(config)
        return
    from peft import inject_adapter_in_model

    before = {name for name, _ in model.named_parameters()}
    inject_adapter_in_model(config, model, ADAPTER)
    model.peft_config = {ADAPTER: config}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in before and "lora_" in name)
