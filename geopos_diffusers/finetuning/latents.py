"""Images to latents."""

from typing import Any

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor


@torch.no_grad()
def encode_moments(vae: Any, pixels: Tensor) -> Tensor:
    """[B, 3, H, W] in [-1, 1] to the latent distribution's parameters, [B, 2 C, h, w] float32.

    An autoencoder without a distribution (AutoencoderDC) gives the latents themselves, [B, C, h, w].
    """
    encoded = vae.encode(pixels.to(vae.dtype))
    moments = encoded.latent_dist.parameters if hasattr(encoded, "latent_dist") else encoded.latent
    # Contiguous, since noise drawn for a tensor follows its layout in memory: the same for cached and for fresh ones.
    return moments.float().contiguous()


def sample_latents(vae: Any, moments: Tensor) -> Tensor:
    """Draw latents [B, C, h, w] float32, scaled as the denoiser expects them, from the device's global generator.

    Nothing is drawn where `moments` are the latents themselves.
    """
    if moments.shape[1] == vae.config.latent_channels:
        return scale_latents(vae, moments)
    return scale_latents(vae, DiagonalGaussianDistribution(moments).sample())


def mean_latents(vae: Any, pixels: Tensor) -> Tensor:
    """[B, 3, H, W] in [-1, 1] to the latents that stand for them, [B, C, h, w], as the decoder takes them."""
    encoded = vae.encode(pixels.to(vae.dtype))
    return encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latent


def scale_latents(vae: Any, latents: Tensor) -> Tensor:
    """The autoencoder's latents as the denoiser expects them, by means and deviations where its config has both."""
    mean, deviation = vae.config.get("latents_mean"), vae.config.get("latents_std")
    if mean is not None and deviation is not None:
        mean, deviation = (torch.tensor(values).to(latents).view(1, -1, 1, 1) for values in (mean, deviation))
        return (latents - mean) * vae.config.scaling_factor / deviation
    shift = vae.config.get("shift_factor") or 0.0
    return (latents - shift) * vae.config.scaling_factor
