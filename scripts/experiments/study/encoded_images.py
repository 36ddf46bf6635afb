"""Held-out images as a denoiser meets them: latents and captions are encoded once and measured many times."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geopos_diffusers.finetuning.denoising import default_denoising
from geopos_diffusers.finetuning.denoising_loss import spread_losses
from geopos_diffusers.finetuning.held_out_loss import load_images
from geopos_diffusers.finetuning.latents import mean_latents, scale_latents
from geopos_diffusers.finetuning.text_conditions import CaptionEncoder, predict
from geopos_diffusers.pipelines.generation import denoiser_of

BATCH = 16  # that of `image_losses`, whose noise is drawn by the batch


def evenly_spread(count: int, total: int) -> list[int]:
    """`count` of the indices below `total`, or all of them where there are no more."""
    count = min(count, total)
    return [index * total // count for index in range(count)]


class EncodedImages:
    """Images of a folder with metadata.jsonl, for one pipeline, whose adapters may change meanwhile.

    Args:
        pipe: on the CPU. size: pixels a side, which images are scaled to.
        count: how many images are used, evenly spread over the folder; all where it has no more.
    """

    @torch.no_grad()
    def __init__(self, pipe: Any, folder: Path, size: int, count: int) -> None:
        pixels, captions = load_images(folder, size, size)
        chosen = evenly_spread(count, len(captions))
        self.model, self.denoising = denoiser_of(pipe).eval(), default_denoising(pipe)
        self.encoder = CaptionEncoder(pipe, torch.device("cpu"))
        self.captions, pixels = [captions[index] for index in chosen], pixels[chosen]
        latents = [scale_latents(pipe.vae, mean_latents(pipe.vae, pixels[part])) for part in self.parts()]
        texts = [self.encoder.encode(self.captions[part]) for part in self.parts()]
        self.latents = torch.cat(latents)
        self.texts = tuple(torch.cat(parts) for parts in zip(*texts, strict=True))

    def __len__(self) -> int:
        return len(self.captions)

    def parts(self) -> Iterator[slice]:
        return (slice(start, min(start + BATCH, len(self))) for start in range(0, len(self), BATCH))

    def losses(self, seed: int = 0) -> np.ndarray:
        """[N] losses of the model as it is now: those of `image_losses` on the same images."""
        return spread_losses(self.denoising, len(self), self.latents.__getitem__, self.predict, seed, BATCH)

    def predict(self, part: slice, noisy: Tensor, timesteps: Tensor) -> Tensor:
        texts = tuple(text[part] for text in self.texts)
        conditions = self.encoder(self.captions[part], torch.zeros(len(noisy), 6), parts=texts)
        return predict(self.model, noisy, timesteps, conditions)

    @torch.no_grad()
    def run_at_middle_noise(self, seed: int = 0) -> None:
        """Give all images to the denoiser at the middle one of the noise levels, for what hooks on its layers see."""
        generator = torch.Generator().manual_seed(seed)
        for part in self.parts():
            clean = self.latents[part]
            levels = torch.full((len(clean),), self.denoising.steps // 2)
            noisy = self.denoising.add_noise(clean, torch.randn(clean.shape, generator=generator), levels)
            self.predict(part, noisy, self.denoising.timesteps(levels))
