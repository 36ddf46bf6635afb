"""One step of denoising, in images or latents: noise, a prediction, and its error; with random or with fixed noise."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .denoising import DDPMDenoising, Denoising, banded_errors
from .masks import mask_weight, share_inside, weighted_error

# From noisy samples [B, C, H, W] and timesteps [B] to the prediction [B, C, H, W].
Predict = Callable[[Tensor, Tensor], Tensor]


def sample_losses(
    args: Any, denoising: Denoising, clean: Tensor, predict: Predict, mask: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The losses of a training batch, with noise and levels of the global generators.

    Args:
        args: of `DenoisingArguments` and `ImageDataArguments`.
        clean: [B, C, h, w] images or latents.
        mask: [B, 1, H, W] in [0, 1], where the loss counts most; see `masks`.

    Returns:
        [B] losses in float32, weighted by level, and with a mask "mask_loss_share", the part that lies inside.
    """
    noise = torch.randn_like(clean)
    if args.noise_offset:
        noise += args.noise_offset * torch.randn(*clean.shape[:2], 1, 1, device=clean.device)
    levels = denoising.draw_levels(len(clean), clean.device)
    added = noise
    if args.input_perturbation:
        added = noise + args.input_perturbation * torch.randn_like(noise)
    noisy = denoising.add_noise(clean, added, levels)
    errors = denoising.errors(predict(noisy, denoising.timesteps(levels)), noisy, clean, noise, levels)
    weight, found = None, {}
    if mask is not None:
        weight = mask_weight(mask, clean.shape[-2:], args.mask_weight, args.mask_floor)
        found["mask_loss_share"] = share_inside(errors, weight, mask)
    means, weights = weighted_error(errors, weight), denoising.weights(levels)
    return means if weights is None else weights * means, found


def denoising_losses(
    args: Any, scheduler: Any, clean: Tensor, predict: Predict, mask: Tensor | None = None
) -> dict[str, Tensor]:
    """`sample_losses` of denoising diffusion, with their mean as "loss". scheduler: a DDPMScheduler."""
    losses, found = sample_losses(args, DDPMDenoising(scheduler, args.loss_weights), clean, predict, mask)
    return {"loss": losses.mean(), **found}


def banded_losses(
    scheduler: Any, clean: Tensor, predict: Predict, bands: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Squared errors [B] of a held-out batch in each band of timesteps, and their mean, not weighted by timestep.

    Args:
        generator: on the CPU; of the noise, and of the timesteps within their bands.
    """
    return banded_errors(DDPMDenoising(scheduler), clean, predict, bands, generator)


@torch.no_grad()
def spread_losses(
    denoising: Denoising,
    count: int,
    clean: Callable[[slice], Tensor],
    predict: Callable[[slice, Tensor, Tensor], Tensor],
    seed: int,
    batch_size: int = 64,
) -> np.ndarray:
    """Mean squared error of the prediction for each sample, at a noise level and noise of its own.

    Levels are spread evenly over the samples. They and the noise depend on `seed`, `count` and the size alone, so that
    models and adapters are compared on the same ones; the global generators stay as they are.

    Args:
        count: samples in all.
        clean: images or latents of a part of them. predict: from the part, its noisy samples and its timesteps.

    Returns:
        [count] losses, not weighted by level.
    """
    generator, losses = torch.Generator().manual_seed(seed), []
    all_levels = spread_levels(count, denoising.steps, generator)
    for start in range(0, count, batch_size):
        part = slice(start, min(start + batch_size, count))
        samples = clean(part)
        noise = torch.randn(samples.shape, generator=generator).to(samples.device)
        levels = all_levels[part].to(samples.device)
        noisy = denoising.add_noise(samples, noise, levels)
        prediction = predict(part, noisy, denoising.timesteps(levels))
        errors = denoising.errors(prediction, noisy, samples, noise, levels)
        losses.append(errors.flatten(1).mean(1).cpu())
    return torch.cat(losses).numpy()


def spread_levels(count: int, steps: int, generator: torch.Generator) -> Tensor:
    """Noise levels [count] out of `steps`, spread evenly, in a random order: those of `spread_losses`."""
    return (torch.arange(count) * steps // count)[torch.randperm(count, generator=generator)]


def held_out_losses(scheduler: Any, *args: Any, **options: Any) -> np.ndarray:
    """`spread_losses` of denoising diffusion. scheduler: a DDPMScheduler."""
    return spread_losses(DDPMDenoising(scheduler), *args, **options)
