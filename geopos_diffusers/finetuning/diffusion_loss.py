"""The denoising loss of latent diffusion, for every prediction type, weighted by timestep."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from .loss_weighting import LossWeighting


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
) -> Tensor:
    """Mean over samples of their mean squared error, each weighted by its timestep.

    Args:
        prediction, target: [B, C, H, W]. timesteps: [B], integers.

    Returns:
        A scalar in float32.
    """
    loss = F.mse_loss(prediction.float(), target.float(), reduction="none").flatten(1).mean(1)
    weights = weighting(scheduler, timesteps)
    return (loss if weights is None else weights * loss).mean()
