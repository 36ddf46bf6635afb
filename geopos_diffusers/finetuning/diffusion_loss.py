"""The denoising loss of latent diffusion, for every prediction type, with optional min-SNR weighting."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def prediction_target(scheduler: Any, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the denoiser should return, by `scheduler.config.prediction_type`.

    Args:
        scheduler: a diffusers scheduler with `add_noise` and `get_velocity` (DDPMScheduler).
        latents, noise: [B, C, H, W]. timesteps: [B], integers.

    Raises:
        ValueError: the scheduler's prediction type is none of epsilon, v_prediction and sample.
    """
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    if kind == "sample":
        return latents
    raise ValueError(f"prediction_type {kind!r} is not one of epsilon, v_prediction, sample")


def diffusion_errors(
    prediction: Tensor, target: Tensor, scheduler: Any, timesteps: Tensor, snr_gamma: float | None = None
) -> Tensor:
    """Mean squared error per sample, weighted by min-SNR-gamma (arXiv 2303.09556, section 3.4) when `snr_gamma` is set.

    Args:
        prediction, target: [B, C, H, W]. timesteps: [B], integers.
        snr_gamma: the cap on the signal-to-noise ratio, 5 in the paper; None weights all timesteps alike.

    Returns:
        [B] in float32.
    """
    loss = F.mse_loss(prediction.float(), target.float(), reduction="none").flatten(1).mean(1)
    if snr_gamma is None:
        return loss
    alphas = scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    snr = alphas / (1 - alphas)
    capped = torch.clamp(snr, max=snr_gamma)
    weight = {"epsilon": capped / snr.clamp(min=1e-8), "v_prediction": capped / (snr + 1), "sample": capped}
    return weight[scheduler.config.prediction_type] * loss


def diffusion_loss(
    prediction: Tensor, target: Tensor, scheduler: Any, timesteps: Tensor, snr_gamma: float | None = None
) -> Tensor:
    """The mean of `diffusion_errors`: a scalar in float32."""
    return diffusion_errors(prediction, target, scheduler, timesteps, snr_gamma).mean()
