"""The denoising loss of latent diffusion, for every prediction type, weighted by timestep."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from .loss_weighting import LossWeighting
from .masks import weighted_error


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


def diffusion_loss(
    prediction: Tensor,
    target: Tensor,
    scheduler: Any,
    timesteps: Tensor,
    weighting: LossWeighting = LossWeighting(),  # noqa: B008 - it is frozen
    weight: Tensor | None = None,
) -> Tensor:
    """Mean over samples of their mean squared error, each weighted by its timestep.

    Args:
        prediction, target: [B, C, H, W]. timesteps: [B], integers.
        weight: [B, 1, H, W], of the pixels, whose weighted mean is taken; see `masks.mask_weight`.

    Returns:
        A scalar in float32.
    """
    loss = weighted_error(F.mse_loss(prediction.float(), target.float(), reduction="none"), weight)
    weights = weighting(scheduler, timesteps)
    return (loss if weights is None else weights * loss).mean()
