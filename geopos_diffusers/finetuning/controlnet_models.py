"""Pipelines with a ControlNet: a loaded or a new one beside a text-to-image pipeline; and images drawn with them."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionXLControlNetPipeline
from PIL import Image
from torch import Tensor

from ..boxes import Box
from ..errors import ConfigError, GeoPosError
from ..patching.framing import boxes_of_batch

EMBEDDING_CHANNELS = (16, 32, 96, 256)  # of diffusers' conditioning embedding; each but the first halves the image


def add_controlnet(base: Any, controlnet: str | None) -> Any:
    """The ControlNet pipeline of a StableDiffusionPipeline or StableDiffusionXLPipeline, with the same models.

    Args:
        controlnet: folder or Hub id; None for a new one with the weights of the UNet's first half.

    Raises:
        GeoPosError: it cannot be loaded. ConfigError: it does not fit the UNet.
    """
    model = new_controlnet(base) if controlnet is None else load_controlnet(controlnet)
    check_fit(model, base)
    parts = {**base.components, "controlnet": model}
    if type(base).__name__ == "StableDiffusionXLPipeline":
        zeros = base.config.force_zeros_for_empty_prompt
        pipe: Any = StableDiffusionXLControlNetPipeline(
            **parts, force_zeros_for_empty_prompt=zeros, add_watermarker=False
        )
    else:
        pipe = StableDiffusionControlNetPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def new_controlnet(base: Any) -> ControlNetModel:
    """With the UNet's weights, and conditioning images scaled down as the autoencoder scales images."""
    halvings = round(math.log2(base.vae_scale_factor))
    if not 1 <= halvings < len(EMBEDDING_CHANNELS):
        raise ConfigError(f"the autoencoder scales down by {base.vae_scale_factor}; a new ControlNet needs 2, 4 or 8")
    return ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=EMBEDDING_CHANNELS[: halvings + 1])


def load_controlnet(model: str) -> ControlNetModel:
    if not Path(model).is_dir() and (model.count("/") != 1 or model.startswith((".", "/", "~"))):
        raise GeoPosError(f"no ControlNet {model!r}: neither a folder nor a Hub id owner/name")
    try:
        return ControlNetModel.from_pretrained(model, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise GeoPosError(f"cannot load the ControlNet {model}: {error}") from error


def check_fit(model: ControlNetModel, base: Any) -> None:
    """Raise ConfigError unless a ControlNet's features are those that the UNet adds them to."""
    for name in ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim"):
        mine, its = model.config[name], base.unet.config[name]
        if mine != its and list(_listed(mine)) != list(_listed(its)):
            raise ConfigError(f"the ControlNet does not fit the UNet: its {name} is {mine}, the UNet's {its}")
    scale = 2 ** (len(model.config.conditioning_embedding_out_channels) - 1)
    if scale != base.vae_scale_factor:
        raise ConfigError(
            f"the ControlNet scales conditioning images down by {scale}, "
            f"the autoencoder scales images by {base.vae_scale_factor}"
        )


def _listed(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


def predict_conditioned(
    unet: Any, controlnet: Any, conditions: dict[str, Any], conditioning: Tensor, noisy: Tensor, timesteps: Tensor
) -> Tensor:
    """The UNet's prediction [B, C, h, w] with what the ControlNet adds to it.

    Args:
        conditions: what both are told of the captions; see `CaptionEncoder`. conditioning: [B, 3, H, W] in [0, 1].
        noisy: [B, C, h, w]. timesteps: [B].
    """
    dtype = conditions["encoder_hidden_states"].dtype
    noisy = noisy.to(dtype)
    down, middle = controlnet(noisy, timesteps, controlnet_cond=conditioning.to(dtype), return_dict=False, **conditions)
    return unet(
        noisy,
        timesteps,
        down_block_additional_residuals=[residual.to(dtype) for residual in down],
        mid_block_additional_residual=middle.to(dtype),
        **conditions,
    ).sample


@contextmanager
def residuals_in(controlnet: torch.nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within the block a ControlNet returns residuals of `dtype`; of a trained one accelerate makes float32."""

    def cast(module: torch.nn.Module, inputs: Any, output: Any) -> tuple[list[Tensor], Tensor]:
        down, middle = output
        return [residual.to(dtype) for residual in down], middle.to(dtype)

    handle = controlnet.register_forward_hook(cast)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def draw_conditioned(
    pipe: Any,
    prompts: Sequence[str],
    conditions: Sequence[Image.Image],
    seed: int,
    steps: int,
    guidance_scale: float,
    batch_size: int = 16,
    boxes: Sequence[Box] | None = None,
) -> list[Image.Image]:
    """An image of each prompt under its conditioning image, of that image's size, from noise of `seed` + its number.

    Args:
        boxes: the frame of each image; None for what is set.
    """
    images: list[Image.Image] = []
    if len({condition.size for condition in conditions}) > 1:  # of aspect-ratio buckets
        batch_size = 1
    for start in range(0, len(prompts), batch_size):
        part = slice(start, start + batch_size)
        chosen = list(conditions[part])
        generators = [torch.Generator().manual_seed(seed + start + index) for index in range(len(chosen))]
        with boxes_of_batch(pipe, boxes, part), residuals_in(pipe.controlnet, pipe.unet.dtype):
            images += pipe(
                prompt=list(prompts[part]),
                image=chosen,
                width=chosen[0].width,
                height=chosen[0].height,
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                generator=generators,
            ).images
    return images
