"""How far a fine-tuned denoiser predicts from what it predicted before."""

from pathlib import Path

import torch
from torch import Tensor

from geopos_diffusers.finetuning.learning_rate_sweep import HeldOut
from geopos_diffusers.pipelines.generation import denoiser_of


class Drift(HeldOut):
    """Mean squared difference of the two models' predictions, [N] for N held-out images, each at a level of its own.

    The Kullback-Leibler divergence of the two models' chains of denoising is such a mean of the same differences,
    weighted by noise level (Ho et al. 2020, equation 8).
    """

    def losses(self, model: str, trained: Path | None) -> list[float]:
        now, before = (self.predictions(model, folder) for folder in (trained, None))
        return (now - before).square().flatten(1).mean(1).tolist()

    def predictions(self, model: str, trained: Path | None) -> Tensor:
        """[N, C, h, w], of latents with the same noise for all models."""
        denoiser, found = denoiser_of(pipe := self.load(model, trained)), []
        handle = denoiser.register_forward_hook(lambda module, inputs, output: found.append(output[0]))
        try:
            self.measure(pipe)
        finally:
            handle.remove()
        return torch.cat(found).double()
