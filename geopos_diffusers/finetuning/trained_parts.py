"""What a fine-tuning run trains (geometry weights, biases, LoRA, the whole UNet), in which precision, saved how."""

import os
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch.nn import Parameter

from ..adapters.files import WEIGHTS_NAME, save_geoconv_weights
from ..adapters.loading import load_geoconv_weights
from ..errors import AdapterError, ConfigError
from ..optional_packages import optional_import
from ..patching.patched_model import geoconv_parameters
from ..patching.surgery import apply_geoconv
from .arguments import FinetuningArguments

PRECISIONS = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LORA_NAME = "pytorch_lora_weights.safetensors"  # as diffusers names it
ATTENTION_PROJECTIONS = ["to_q", "to_k", "to_v", "to_out.0"]


def add_trained_parts(pipe: Any, arguments: FinetuningArguments) -> dict[str, Parameter]:
    """Patch `pipe.unet` as the arguments say and freeze the rest of it.

    Returns:
        The parameters to train by their name in the UNet, in float32, part by part (see `part_of`) in the order of
        `arguments.parts`, within a part in the UNet's own order.

    Raises:
        SurgeryError, ConfigError: no layer matches the targets.
        MissingDependencyError: LoRA was asked for and peft is not installed.
    """
    unet = pipe.unet
    unet.requires_grad_("full" in arguments.parts)
    if arguments.patches:
        apply_geoconv(pipe, arguments.geoconv_config())
    if "lora" in arguments.parts:
        _add_lora(unet, arguments)
    if arguments.patches:
        # After LoRA, since adding LoRA freezes everything but its own factors.
        for parameter in geoconv_parameters(pipe).values():
            parameter.requires_grad_(True)
    trained = {name: parameter for name, parameter in unet.named_parameters() if parameter.requires_grad}
    for parameter in trained.values():
        parameter.data = parameter.data.float()
    order = {part: index for index, part in enumerate(arguments.parts)}
    return dict(sorted(trained.items(), key=lambda item: order[part_of(item[0], arguments)]))


def part_of(name: str, arguments: FinetuningArguments) -> str:
    """Which of `arguments.parts` a trained parameter of the UNet belongs to."""
    if name.endswith("geo_weight"):
        return "bias" if "bias" in arguments.parts else "geoconv"
    return "lora" if "lora" in arguments.parts else "full"


def parameter_groups(parameters: dict[str, Parameter], arguments: FinetuningArguments) -> list[dict[str, Any]]:
    """The optimizer's groups, one a part, in the order of `parameters`: each with its name and peak learning rate.

    Geometry weights and biases are not decayed, as is usual for biases.
    """
    groups = []
    for part in arguments.parts:
        rate = arguments.peak_learning_rate(part)
        owned = [parameter for name, parameter in parameters.items() if part_of(name, arguments) == part]
        decay = arguments.adam_weight_decay if part in ("lora", "full") else 0.0
        groups.append({"params": owned, "lr": rate, "weight_decay": decay, "part": part, "peak": rate})
    return groups


def _add_lora(unet: torch.nn.Module, arguments: FinetuningArguments) -> None:
    with optional_import("LoRA", "train"):
        from peft import LoraConfig
    targets = arguments.lora_target_modules or ATTENTION_PROJECTIONS
    config = LoraConfig(
        r=arguments.lora_rank,
        lora_alpha=arguments.lora_alpha or arguments.lora_rank,
        target_modules=targets,
        init_lora_weights="gaussian",
    )
    try:
        unet.add_adapter(config)
    except ValueError as error:
        raise ConfigError(f"LoRA cannot be added to {', '.join(targets)}: {error}") from error


def place_models(pipe: Any, accelerator: Accelerator) -> None:
    """Move all models to the device; what is frozen also to the low precision, what is trained stays in float32."""
    dtype = PRECISIONS[accelerator.mixed_precision]
    for name, module in pipe.components.items():
        if not isinstance(module, torch.nn.Module):
            continue
        module.to(accelerator.device)
        if name != "unet":
            module.requires_grad_(False).eval()
        # VAEs that overflow in fp16 (SDXL's) say so in their config.
        if name == "vae" and dtype == torch.float16 and module.config.get("force_upcast", False):
            continue
        for tensor in (*module.parameters(), *module.buffers()):
            if not tensor.requires_grad and tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)


def save_trained_parts(
    pipe: Any, parts: tuple[str, ...], folder: str | os.PathLike, card: dict[str, Any] | None = None
) -> None:
    """Write what was trained in the format that loads it again.

    geoconv, bias: `load_geoconv_weights(pipe, folder)`. lora: `pipe.load_lora_weights(folder)`. full:
    `UNet2DConditionModel.from_pretrained(folder / "unet")`, without geometry weights, which are saved apart. `card`:
    facts by heading for the model card of the GeoConv adapter.
    """
    folder = Path(folder)
    if "geoconv" in parts or "bias" in parts:
        save_geoconv_weights(pipe, folder, card=card)
    if "lora" in parts:
        from diffusers.utils import convert_state_dict_to_diffusers
        from peft.utils import get_peft_model_state_dict

        type(pipe).save_lora_weights(
            folder,
            unet_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(pipe.unet)),
            # Without it alpha would be lost on loading.
            unet_lora_adapter_metadata=pipe.unet.peft_config["default"].to_dict(),
        )
    if "full" in parts:
        pipe.unet.save_config(folder / "unet")
        state = pipe.unet.state_dict()
        weights = {name: state[name].contiguous() for name in state if not name.endswith("geo_weight")}
        save_file(weights, folder / "unet" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def load_trained_parts(pipe: Any, folder: str | os.PathLike) -> None:
    """Put what `save_trained_parts` wrote into a fresh pipeline.

    Raises:
        AdapterError: the folder holds none of it, or weights that do not fit.
    """
    folder = Path(folder)
    found = False
    if (folder / "unet").is_dir():
        found = True
        pipe.unet = type(pipe.unet).from_pretrained(folder / "unet", use_safetensors=True)
    if (folder / WEIGHTS_NAME).is_file():
        found = True
        load_geoconv_weights(pipe, folder)
    if (folder / LORA_NAME).is_file():
        found = True
        pipe.load_lora_weights(folder, use_safetensors=True)
    if not found:
        raise AdapterError(f"{folder} holds nothing that was trained")
