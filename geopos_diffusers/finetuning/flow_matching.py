"""Rectified flow (arXiv 2403.03206), as Stable Diffusion 3 and Sana are trained: the denoiser predicts noise - latents.

Noise levels and weights are those of diffusers' training utilities.
"""

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3
from torch import Tensor

from .flow_options import FlowMatchingArguments


def is_flow_matching(scheduler: Any) -> bool:
    """Whether a pipeline's scheduler samples along a flow: by its class, or as Sana's DPM-Solver by its config."""
    config = scheduler.config
    return (
        "FlowMatch" in type(scheduler).__name__
        or config.get("prediction_type") == "flow_prediction"
        or bool(config.get("use_flow_sigmas", False))
    )


class FlowMatching:
    """Level 0 is pure noise: the order of diffusers' schedulers.

    Args:
        config: of the pipeline's scheduler; its number of timesteps and its shift count.
        timestep_scale: what the denoiser's timesteps are multiplied by, as its pipeline does.
    """

    def __init__(self, config: Any, args: FlowMatchingArguments, timestep_scale: float = 1.0) -> None:
        self.args, self.timestep_scale = args, timestep_scale
        shift = args.flow_shift or config.get("shift") or config.get("flow_shift") or 1.0
        self.steps: int = config.get("num_train_timesteps", 1000)
        self.scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=self.steps, shift=shift)

    def draw_levels(self, count: int, device: torch.device) -> Tensor:
        args = self.args
        density = compute_density_for_timestep_sampling(
            args.flow_value("timestep_weighting"),
            count,
            logit_mean=args.flow_value("logit_mean"),
            logit_std=args.flow_value("logit_std"),
            mode_scale=args.flow_value("mode_scale"),
            device=device,
        )
        return (density * self.steps).long().clamp(max=self.steps - 1)

    def timesteps(self, levels: Tensor) -> Tensor:
        return self.scheduler.timesteps.to(levels.device)[levels] * self.timestep_scale

    def sigmas(self, levels: Tensor) -> Tensor:
        """The share of noise at each level, [B, 1, 1, 1] in (0, 1]."""
        return self.scheduler.sigmas.to(levels.device)[levels].view(-1, 1, 1, 1)

    def add_noise(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        sigmas = self.sigmas(levels)
        return (1 - sigmas) * latents + sigmas * noise

    def errors(self, prediction: Tensor, noisy: Tensor, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        sigmas = self.sigmas(levels)
        prediction = prediction.float()[:, : latents.shape[1]]  # some models predict a variance too
        target = noise - latents
        if self.args.precondition_outputs:
            prediction, target = noisy.float() - sigmas * prediction, latents
        weights = compute_loss_weighting_for_sd3(self.args.flow_value("timestep_weighting"), sigmas)
        return (weights * (prediction - target).square()).flatten(1).mean(1)
