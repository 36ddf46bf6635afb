"""What a fine-tuning run trains (geometry weights, biases, LoRA, the whole model), in which precision, saved how."""

import os
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import DiffusionPipeline
from safetensors.torch import save_file
from torch import nn
from torch.nn import Parameter

from ..adapters.files import WEIGHTS_NAME, save_geoconv_weights
from ..adapters.loading import load_geoconv_weights
from ..errors import AdapterError
from ..patching.patched_model import geoconv_parameters
from ..patching.surgery import apply_geoconv
from .lora import LORA_NAME, add_lora, load_lora, save_lora
from .part_options import PartArguments

PRECISIONS = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def add_trained_parts(owner: Any, component: str, arguments: PartArguments) -> dict[str, Parameter]:
    """Patch a component of a pipeline as the arguments say and freeze the rest of it.

    Args:
        owner: a pipeline, or anything else whose attribute `component` is the model.
        component: the model's name in the pipeline: unet, transformer, vae, controlnet.

    Returns:
        The parameters to train by their name in the model, in float32, part by part (see `part_of`) in the order of
        `arguments.parts`, within a part in the model's own order.

    Raises:
        SurgeryError, ConfigError: no layer matches the targets.
        MissingDependencyError: LoRA was asked for and peft is not installed.
    """
    model: nn.Module = getattr(owner, component)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("full" in arguments.parts and arguments.trains_whole(name))
    if arguments.patches:
        apply_geoconv(_patched_as(owner, component), arguments.geoconv_config(component))
    if "lora" in arguments.parts:
        add_lora(model, arguments)
    if arguments.patches:
        # After LoRA, since adding LoRA freezes everything but its own factors.
        for parameter in geoconv_parameters(model).values():
            parameter.requires_grad_(True)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for parameter in trained.values():
        parameter.data = parameter.data.float()
    order = {part: index for index, part in enumerate(arguments.parts)}
    return dict(sorted(trained.items(), key=lambda item: order[part_of(item[0], arguments)]))


def _patched_as(owner: Any, component: str) -> Any:
    """The pipeline, whose name adapters record; the model itself where there is no pipeline."""
    return owner if isinstance(owner, DiffusionPipeline) else getattr(owner, component)


def part_of(name: str, arguments: PartArguments) -> str:
    """Which of `arguments.rated_parts` a trained parameter belongs to."""
    if name.startswith("text_encoder"):
        return "text_encoder"
    if name.endswith("geo_weight"):
        return "bias" if "bias" in arguments.parts else "geoconv"
    return "lora" if "lora" in arguments.parts else "full"


def parameter_groups(parameters: dict[str, Parameter], arguments: PartArguments) -> list[dict[str, Any]]:
    """The optimizer's groups, one a part, in the order of `parameters`: each with its name and peak learning rate.

    Geometry weights and biases are not decayed, as is usual for biases.
    """
    groups = []
    for part in arguments.rated_parts:
        rate = arguments.peak_learning_rate(part)
        owned = [parameter for name, parameter in parameters.items() if part_of(name, arguments) == part]
        decay = arguments.adam_weight_decay if part in ("lora", "full", "text_encoder") else 0.0
        groups.append({"params": owned, "lr": rate, "weight_decay": decay, "part": part, "peak": rate})
    return groups


def place_models(components: dict[str, Any], trained: str, accelerator: Accelerator) -> None:
    """Move all models to the device; what is frozen also to the low precision, what is trained stays in float32.

    Args:
        components: by name; those that are no models stay as they are. trained: the name of the one that is trained.
    """
    dtype = PRECISIONS[accelerator.mixed_precision]
    for name, module in components.items():
        if not isinstance(module, nn.Module):
            continue
        module.to(accelerator.device)
        if name != trained:
            module.requires_grad_(False).eval()
        # VAEs that overflow in fp16 (SDXL's) say so in their config.
        if name == "vae" and dtype == torch.float16 and module.config.get("force_upcast", False):
            continue
        for tensor in (*module.parameters(), *module.buffers()):
            if not tensor.requires_grad and tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)


def save_trained_parts(
    owner: Any,
    component: str,
    parts: tuple[str, ...],
    folder: str | os.PathLike,
    card: dict[str, Any] | None = None,
) -> None:
    """Write what was trained of a component in the format that loads it again; `load_trained_parts` reads all.

    geoconv, bias: `load_geoconv_weights(pipe, folder)`. lora: `pipe.load_lora_weights(folder)` where the pipeline has
    that. full: `from_pretrained(folder / component)`, without geometry weights, which are saved apart. `card`: facts by
    heading for the model card of the GeoConv adapter.
    """
    folder, model = Path(folder), getattr(owner, component)
    if "geoconv" in parts or "bias" in parts:
        save_geoconv_weights(_patched_as(owner, component), folder, card=card)
    if "lora" in parts:
        save_lora(owner, [component], folder)
    if "full" in parts:
        model.save_config(folder / component)
        state = model.state_dict()
        weights = {name: state[name].contiguous() for name in state if not name.endswith("geo_weight")}
        save_file(weights, folder / component / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def load_trained_parts(owner: Any, folder: str | os.PathLike, component: str = "unet") -> None:
    """Put what `save_trained_parts` wrote into a fresh pipeline, or whatever else holds the model.

    Raises:
        AdapterError: the folder holds none of it, or weights that do not fit.
    """
    folder = Path(folder)
    found = False
    if (folder / component).is_dir():
        found = True
        model = type(getattr(owner, component)).from_pretrained(folder / component, use_safetensors=True)
        setattr(owner, component, model)
    if (folder / WEIGHTS_NAME).is_file():
        found = True
        load_geoconv_weights(_patched_as(owner, component), folder)
    if (folder / LORA_NAME).is_file():
        found = True
        load_lora(owner, component, folder)
    if not found:
        raise AdapterError(f"{folder} holds nothing that was trained")
