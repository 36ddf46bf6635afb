"""The denoising loss on images that were not trained on: the measure by which runs and learning rates are compared."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from ..images.opening import open_image
from .diffusion_loss import prediction_target
from .framing import prepare_image
from .text_conditions import CaptionEncoder


def load_images(folder: str | Path, height: int, width: int) -> tuple[Tensor, list[str]]:
    """Images of a folder with metadata.jsonl, scaled and cut out of their middle, and their captions.

    Returns:
        Pixels [N, 3, height, width] in [-1, 1], and N captions.
    """
    folder = Path(folder)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    side = max(height, width)
    pixels = torch.stack([prepare_image(open_image(folder / row["file_name"]), side)[0] for row in rows])
    top, left = (side - height) // 2, (side - width) // 2
    return pixels[:, :, top : top + height, left : left + width], [row["text"] for row in rows]


@torch.no_grad()
def image_losses(pipe: Any, pixels: Tensor, captions: list[str], seed: int, batch_size: int = 16) -> np.ndarray:
    """Mean squared error of the denoiser's prediction for each image, at a timestep and noise of its own.

    Timesteps are spread evenly over the images. They and the noise depend on `seed` and the size alone, so that models
    and adapters are compared on the same ones.

    Args:
        pipe: a Stable Diffusion pipeline, on the CPU.
        pixels: [N, 3, H, W] in [-1, 1].

    Returns:
        [N] losses, not weighted by timestep.
    """
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    encode = CaptionEncoder(pipe, torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    limit, count, losses = scheduler.config.num_train_timesteps, len(captions), []
    all_timesteps = (torch.arange(count) * limit // count)[torch.randperm(count, generator=generator)]
    pipe.unet.eval()
    for start in range(0, count, batch_size):
        part = slice(start, start + batch_size)
        latents = pipe.vae.encode(pixels[part]).latent_dist.mean * pipe.vae.config.scaling_factor
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = all_timesteps[part]
        conditions = encode(captions[part], torch.zeros(len(latents), 6))
        prediction = pipe.unet(scheduler.add_noise(latents, noise, timesteps), timesteps, **conditions).sample
        target = prediction_target(scheduler, latents, noise, timesteps)
        losses.append((prediction - target).square().flatten(1).mean(1))
    return torch.cat(losses).numpy()
