"""What a denoiser learns: noisy latents in, noise (or another target) out. One class for each family of schedules."""

from typing import Any, Protocol

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from .denoising_options import DenoisingArguments
from .diffusion_loss import diffusion_errors, prediction_target


class Denoising(Protocol):
    """A schedule of noise levels and the loss of a prediction. Levels are whole numbers in [0, steps).

    steps: how many noise levels there are.
    """

    steps: int

    def draw_levels(self, count: int, device: torch.device) -> Tensor:
        """[count] noise levels from the device's global generator."""

    def timesteps(self, levels: Tensor) -> Tensor:
        """What the denoiser is told of the levels, [B]."""

    def add_noise(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """The noisy latents, [B, C, H, W]."""

    def errors(self, prediction: Tensor, noisy: Tensor, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """Each image's weighted mean squared error, [B] in float32. prediction: of the denoiser for `noisy`."""


class DDPMDenoising:
    """Denoising diffusion: levels are DDPM's timesteps, all equally likely.

    Args:
        config: of the pipeline's scheduler.
    """

    def __init__(self, config: Any, args: DenoisingArguments) -> None:
        self.scheduler, self.args = DDPMScheduler.from_config(config), args
        self.steps: int = self.scheduler.config.num_train_timesteps

    def draw_levels(self, count: int, device: torch.device) -> Tensor:
        return torch.randint(self.steps, (count,), device=device)

    def timesteps(self, levels: Tensor) -> Tensor:
        return levels

    def add_noise(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        return self.scheduler.add_noise(latents, noise, levels)

    def errors(self, prediction: Tensor, noisy: Tensor, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        target = prediction_target(self.scheduler, latents, noise, levels)
        return diffusion_errors(prediction, target, self.scheduler, levels, self.args.snr_gamma)
