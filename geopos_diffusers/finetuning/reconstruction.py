"""How well a pipeline's autoencoder holds the training images: fine-tuning the denoiser brings no lost detail back."""

import logging
from typing import Any

import torch
from torch.nn.functional import mse_loss

from .latents import mean_latents

logger = logging.getLogger(__name__)
LARGEST_SAMPLE = 16  # images
LARGEST_AREA = 2**22  # pixels of all of them: 16 images of 512 x 512
ENOUGH = 30.0  # dB


@torch.no_grad()
def reconstruction_psnr(data: Any, vae: Any, device: torch.device) -> float:
    """Mean PSNR in dB of up to 16 images of `data`, evenly spaced, encoded and decoded. Draws no random numbers.

    Args:
        data: with `resolution` and `sample(count)`, which gives items whose "pixels" are [3, H, W] in [-1, 1].
        vae: the autoencoder, on `device`.
    """
    values = []
    for item in data.sample(min(LARGEST_SAMPLE, max(1, LARGEST_AREA // data.resolution**2))):
        pixels = item["pixels"][None].to(device)
        latents = mean_latents(vae, pixels)
        decoded = vae.decode(latents).sample.float().nan_to_num().clamp(-1, 1)
        error = mse_loss(decoded / 2, pixels / 2).clamp(min=1e-10)  # peak to peak 1; no more than 100 dB
        values.append(-10 * torch.log10(error).item())
    return sum(values) / len(values)


def warn_of_lost_detail(psnr: float) -> None:
    """Say so if the reconstruction is worse than 30 dB."""
    if psnr < ENOUGH:
        logger.warning(
            "the autoencoder loses detail of these images: it reconstructs them at %.1f dB, below %.0f; "
            "generated images can be no better",
            *(psnr, ENOUGH),
        )
