"""Inpainting with any image-to-image pipeline: after each step all but the masked latents are the image's own again.

diffusers' inpainting pipelines of Stable Diffusion do the same, but for latents of 4 channels alone.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn


def needs_blending(pipe: Any) -> bool:
    """Whether diffusers' inpainting pipeline refuses a UNet because its latents have not 4 channels."""
    unet, vae = getattr(pipe, "unet", None), getattr(pipe, "vae", None)
    return unet is not None and vae is not None and unet.config.in_channels == vae.config.latent_channels != 4


def blend_latents(
    pipe: Any, square: Image.Image, mask: Image.Image, generators: list[torch.Generator]
) -> Callable[[Any, int, Any, dict[str, Tensor]], dict[str, Tensor]]:
    """What a call of an image-to-image pipeline is given as `callback_on_step_end`.

    Args:
        square: the image that the pipeline is given. mask: white where it is drawn anew, of the same size.
        generators: one for each image of the call, on the CPU; the noise of the kept part is drawn from copies.
    """
    pixels = pipe.image_processor.preprocess(square).to(pipe.vae.device, pipe.vae.dtype)
    with torch.no_grad():
        kept = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
    white = torch.from_numpy(np.asarray(mask, dtype=np.float32) / 255)[None, None]
    inside = nn.functional.interpolate(white, kept.shape[-2:], mode="area").to(kept.device) > 0
    noise = torch.cat(
        [torch.randn(kept.shape, generator=generator.clone_state(), dtype=torch.float32) for generator in generators]
    ).to(kept)

    def blend(pipe: Any, step: int, time: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
        times = pipe.scheduler.timesteps[-pipe.num_timesteps :]
        outside = kept
        if step + 1 < len(times):
            outside = pipe.scheduler.add_noise(kept.expand_as(noise), noise, times[step + 1].repeat(len(noise)))
        return {"latents": torch.where(inside, values["latents"], outside.to(values["latents"].dtype))}

    return blend
