"""Images to latents, at each step or once and for all."""

from typing import Any

import torch
from accelerate import Accelerator
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from .image_text_data import ImageTextData


class LatentData(Dataset):
    """Image data whose images are replaced by the parameters of their latent distribution, kept in memory.

    Item i is {"moments": [2 C, h, w] float32 (mean and log-variance), "caption", "sizes"}, so that latents are drawn
    anew at each step, as they are from images.
    """

    def __init__(self, moments: Tensor, sizes: Tensor, images: ImageTextData) -> None:
        self.moments, self.sizes, self.captions, self.skipped = moments, sizes, images.captions, images.skipped

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"moments": self.moments[index], "caption": self.captions[index], "sizes": self.sizes[index]}


def encode_all(data: ImageTextData, vae: Any, accelerator: Accelerator, batch_size: int, workers: int) -> LatentData:
    """Encode every image once; several processes share the work and all end up with all latents."""
    size, processes = len(data), accelerator.num_processes
    # The list is padded to equal shares, which `gather` needs, and cut again at the end.
    stride = processes * batch_size
    padded = [index % size for index in range(-(-size // stride) * stride)]
    mine = [
        index
        for start in range(accelerator.process_index * batch_size, len(padded), stride)
        for index in padded[start : start + batch_size]
    ]
    loader = DataLoader(data, batch_size, sampler=mine, num_workers=workers)
    moments, sizes = [], []
    for batch in tqdm(loader, desc="encoding images", disable=not accelerator.is_main_process, leave=False):
        encoded = encode_moments(vae, batch["pixels"].to(accelerator.device))
        moments.append(accelerator.gather(encoded).cpu())
        sizes.append(accelerator.gather(batch["sizes"].to(accelerator.device)).cpu())
    return LatentData(torch.cat(moments)[:size], torch.cat(sizes)[:size], data)


@torch.no_grad()
def encode_moments(vae: Any, pixels: Tensor) -> Tensor:
    """[B, 3, H, W] in [-1, 1] to the latent distribution's parameters, [B, 2 C, h, w] float32."""
    # Contiguous, since noise drawn for a tensor follows its layout in memory: the same for cached and for fresh ones.
    return vae.encode(pixels.to(vae.dtype)).latent_dist.parameters.float().contiguous()


def sample_latents(vae: Any, moments: Tensor) -> Tensor:
    """Draw latents [B, C, h, w] float32, scaled as the denoiser expects them, from the device's global generator."""
    latents = DiagonalGaussianDistribution(moments).sample()
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    return (latents - shift) * vae.config.scaling_factor
