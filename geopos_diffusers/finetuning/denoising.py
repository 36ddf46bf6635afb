"""What a denoiser learns: noisy latents in, noise (or another target) out. One class for each family of schedules."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import Tensor

from ..errors import ConfigError
from ..pipelines.generation import denoiser_of
from .diffusion_loss import prediction_target
from .flow_matching import FlowMatching, is_flow_matching
from .flow_options import FlowMatchingArguments
from .loss_weighting import LossWeighting


class Denoising(Protocol):
    """Noise levels, whole numbers in [0, steps) from the least noise on, and the loss of a prediction.

    steps: how many noise levels there are. target: the name of what is learnt.
    """

    steps: int
    target: str

    def draw_levels(self, count: int, device: torch.device) -> Tensor:
        """[count] noise levels from the device's global generator."""

    def timesteps(self, levels: Tensor) -> Tensor:
        """What the denoiser is told of the levels, [B]."""

    def add_noise(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """The noisy latents, [B, C, h, w]."""

    def errors(self, prediction: Tensor, noisy: Tensor, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """Squared errors, [B, C, h, w] in float32, of the denoiser's prediction for `noisy`."""

    def weights(self, levels: Tensor) -> Tensor | None:
        """How much the levels count, [B]; None where all count alike."""


class DDPMDenoising:
    """Denoising diffusion: levels are DDPM's timesteps, all equally likely.

    Args:
        scheduler: a DDPMScheduler. weighting: of the timesteps.
    """

    def __init__(self, scheduler: Any, weighting: LossWeighting | None = None) -> None:
        self.scheduler, self.weighting = scheduler, weighting or LossWeighting()
        self.steps: int = self.scheduler.config.num_train_timesteps
        self.target: str = self.scheduler.config.prediction_type

    def draw_levels(self, count: int, device: torch.device) -> Tensor:
        return torch.randint(self.steps, (count,), device=device)

    def timesteps(self, levels: Tensor) -> Tensor:
        return levels

    def add_noise(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        return self.scheduler.add_noise(latents, noise, levels)

    def errors(self, prediction: Tensor, noisy: Tensor, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        target = prediction_target(self.scheduler, latents, noise, levels)
        return F.mse_loss(prediction.float(), target.float(), reduction="none")

    def weights(self, levels: Tensor) -> Tensor | None:
        return self.weighting(self.scheduler, levels)


def ddpm_scheduler(pipe: Any) -> DDPMScheduler:
    """DDPM's scheduler with the noise of a pipeline's own.

    Raises:
        ConfigError: that has no betas, as those of EDM.
    """
    if "beta_schedule" not in pipe.scheduler.config:
        name = type(pipe).__name__
        raise ConfigError(f"{name} has a {type(pipe.scheduler).__name__}, whose noise is not that of DDPM")
    return DDPMScheduler.from_config(pipe.scheduler.config)


def build_denoising(pipe: Any, args: Any) -> Denoising:
    """What a pipeline's denoiser learns, by its scheduler. args: with the options of both kinds.

    Raises:
        ConfigError: an option of the other kind is given, or the noise is of neither.
    """
    name = type(pipe).__name__
    if is_flow_matching(pipe.scheduler):
        for option in ("loss_weighting", "snr_gamma", "p2_gamma", "p2_k", "prediction_type"):
            if getattr(args, option) is not None:
                raise ConfigError(f"{option} is of denoising diffusion; {name} is trained by flow matching")
        return FlowMatching(pipe.scheduler.config, args, denoiser_of(pipe).config.get("timestep_scale", 1.0))
    for option in args.given_flow_options():
        raise ConfigError(f"{option} is of flow matching; {name} is trained by denoising diffusion")
    return DDPMDenoising(ddpm_scheduler(pipe), args.loss_weights)


def default_denoising(pipe: Any) -> Denoising:
    """The same where no options are given; for measuring."""
    scheduler = pipe.scheduler
    if is_flow_matching(scheduler):
        args = FlowMatchingArguments(output_dir=".", max_train_steps=1)
        return FlowMatching(scheduler.config, args, denoiser_of(pipe).config.get("timestep_scale", 1.0))
    return DDPMDenoising(ddpm_scheduler(pipe))


def banded_errors(
    denoising: Denoising,
    clean: Tensor,
    predict: Callable[[Tensor, Tensor], Tensor],
    bands: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Squared errors [B] of a held-out batch in each band of noise levels, and their mean, not weighted by level.

    Args:
        clean: [B, C, h, w]. predict: from noisy samples and timesteps to the denoiser's prediction.
        generator: on the CPU; of the noise, and of the levels within their bands.
    """
    values = {}
    for band in range(bands):
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        places = (band + torch.rand(len(clean), generator=generator)) / bands
        levels = (places * denoising.steps).long().clamp(max=denoising.steps - 1).to(clean.device)
        noisy = denoising.add_noise(clean, noise, levels)
        errors = denoising.errors(predict(noisy, denoising.timesteps(levels)), noisy, clean, noise, levels)
        values[f"validation_loss_band_{band}"] = errors.flatten(1).mean(1)
    return {"validation_loss": torch.stack(list(values.values())).mean(0), **values}
