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
    """Levels are the places of diffusers' schedule from its end on.

    Args:
        config: of the pipeline's scheduler; its number of timesteps and its shift count.
        timestep_scale: what the denoiser's timesteps are multiplied by, as its pipeline does.
    """

    target = "flow"

    def __init__(self, config: Any, args: FlowMatchingArguments, timestep_scale: float = 1.0) -> None:
        self.args, self.timestep_scale = args, timestep_scale
        shift = args.flow_shift or config.get("shift") or config.get("flow_shift") or 1.0
        self.steps: int = config.get("num_train_timesteps", 1000)
        schedule = FlowMatchEulerDiscreteScheduler(num_train_timesteps=self.steps, shift=shift)
        self._timesteps, self._sigmas = schedule.timesteps.flip(0), schedule.sigmas.flip(0)

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
        return self.steps - 1 - (density * self.steps).long().clamp(max=self.steps - 1)

    def timesteps(self, levels: Tensor) -> Tensor:
        return self._timesteps.to(levels.device)[levels] * self.timestep_scale

    def sigmas(self, levels: Tensor) -> Tensor:
        """The share of noise at each level, [B] in (0, 1]."""
        return self._sigmas.to(levels.device)[levels]

    def add_noise(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        sigmas = self.sigmas(levels).view(-1, 1, 1, 1)
        return (1 - sigmas) * latents + sigmas * noise

    def errors(self, prediction: Tensor, noisy: Tensor, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        prediction = prediction.float()[:, : latents.shape[1]]  # some models predict a variance too
        if self.args.precondition_outputs:
            return (noisy.float() - self.sigmas(levels).view(-1, 1, 1, 1) * prediction - latents).square()
        return (prediction - (noise - latents)).square()

    def weights(self, levels: Tensor) -> Tensor | None:
        return compute_loss_weighting_for_sd3(self.args.flow_value("timestep_weighting"), self.sigmas(levels))
