"""Patched models whose geometry weights are not zero, and one call of each kind of model."""

import torch
from diffusers import StableDiffusionPipeline
from tiny_models import tiny_stable_diffusion
from torch import Tensor, nn

from geopos_diffusers import GeoConvConfig, apply_geoconv, geoconv_parameters


def trained_stable_diffusion(
    config: GeoConvConfig | None = None, seed: int = 0, size: float = 0.1
) -> StableDiffusionPipeline:
    """The tiny pipeline, patched, with geometry weights drawn from `seed`, of standard deviation `size`."""
    pipe = tiny_stable_diffusion()
    apply_geoconv(pipe, config)
    draw_geometry(pipe, seed, size)
    return pipe


def draw_geometry(pipe_or_model, seed: int = 0, size: float = 0.1) -> None:
    """Put normal geometry weights of standard deviation `size` into a patched pipeline or model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in geoconv_parameters(pipe_or_model).values():
            weight.copy_(size * torch.randn(weight.shape, generator=generator))


def latents_and_text(
    height: int = 16, width: int = 16, batch: int = 2, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Arguments of the tiny UNet: latents [batch, 4, height, width] and text states [batch, 5, 16]."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(batch, 4, height, width, generator=generator)
    return latents.to(dtype), torch.randn(batch, 5, 16, generator=generator).to(dtype)


def denoise(unet: nn.Module, height: int = 16, width: int = 16, dtype: torch.dtype = torch.float32) -> Tensor:
    """The UNet's prediction for fixed inputs, without gradients: [2, 4, height, width]."""
    latents, text = latents_and_text(height, width, dtype=dtype)
    with torch.no_grad():
        return unet(latents, 7, text).sample


def relative_error(output: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    return ((output.double() - expected.double()).norm() / expected.double().norm()).item()
