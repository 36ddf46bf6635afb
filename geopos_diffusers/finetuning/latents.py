"""Images to latents."""

from typing import Any

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor


@torch.no_grad()
def encode_moments(vae: Any, pixels: Tensor) -> Tensor:
    """[B, 3, H, W] in [-1, 1] to the latent distribution's parameters, [B, 2 C, h, w] float32."""
    # Contiguous, since noise drawn for a tensor follows its layout in memory: the same for cached and for fresh ones.
    return vae.encode(pixels.to(vae.dtype)).latent_dist.parameters.float().contiguous()


def sample_latents(vae: Any, moments: Tensor) -> Tensor:
    """Draw latents [B, C, h, w] float32, scaled as the denoiser expects them, from the device's global generator."""
    return scale_latents(vae, DiagonalGaussianDistribution(moments).sample())


def scale_latents(vae: Any, latents: Tensor) -> Tensor:
    """Latents as the denoiser expects them, of latents as the autoencoder has them."""
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    return (latents - shift) * vae.config.scaling_factor
