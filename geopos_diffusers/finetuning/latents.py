"""Images to latents, at each step or once and for all."""

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..errors import AdapterError
from ..files import atomic_path
from .image_text_data import ImageTextData


class LatentData(Dataset):
    """Image data whose images are replaced by the parameters of their latent distribution, kept in memory.

    Item i is {"moments": [2 C, h, w] float32 (mean and log-variance), "caption", "sizes"}, so that latents are drawn
    anew at each step, as they are from images.
    """

    def __init__(self, moments: Tensor, sizes: Tensor, images: ImageTextData) -> None:
        self.moments, self.sizes, self.captions, self.skipped = moments, sizes, images.captions, images.skipped
        self.resolution = images.resolution

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


def encode_or_read(
    data: ImageTextData, vae: Any, accelerator: Accelerator, batch_size: int, workers: int, folder: str | os.PathLike
) -> LatentData:
    """`encode_all`, kept as a safetensors file in `folder` and read from there by later runs.

    The file is named after the autoencoder's weights and every pixel, so that it is never read for other images.

    Raises:
        AdapterError: a file of that name is there and damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    file = Path(folder) / f"latents-{content_key(data, vae, accelerator, batch_size, workers)}.safetensors"
    if file.is_file():
        try:
            stored = load_file(file)
            return LatentData(stored["moments"], stored["sizes"], data)
        except (SafetensorError, KeyError) as error:
            raise AdapterError(f"{file} is damaged ({error}); remove it") from error
    latents = encode_all(data, vae, accelerator, batch_size, workers)
    if accelerator.is_main_process:
        with atomic_path(file) as temporary:
            save_file({"moments": latents.moments, "sizes": latents.sizes}, temporary)
    accelerator.wait_for_everyone()
    return latents


def content_key(data: ImageTextData, vae: Any, accelerator: Accelerator, batch_size: int, workers: int) -> str:
    """A digest of an autoencoder's weights and of all images as they are encoded."""
    digest = hashlib.sha256()
    for name, value in sorted(vae.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    loader = DataLoader(data, batch_size, num_workers=workers)
    for batch in tqdm(loader, desc="hashing images", disable=not accelerator.is_main_process, leave=False):
        digest.update(batch["pixels"].numpy())
    return digest.hexdigest()[:24]


@torch.no_grad()
def encode_moments(vae: Any, pixels: Tensor) -> Tensor:
    """[B, 3, H, W] in [-1, 1] to the latent distribution's parameters, [B, 2 C, h, w] float32.

    An autoencoder without a distribution (AutoencoderDC) gives the latents themselves, [B, C, h, w].
    """
    encoded = vae.encode(pixels.to(vae.dtype))
    moments = encoded.latent_dist.parameters if hasattr(encoded, "latent_dist") else encoded.latent
    # Contiguous, since noise drawn for a tensor follows its layout in memory: the same for cached and for fresh ones.
    return moments.float().contiguous()


def sample_latents(vae: Any, moments: Tensor) -> Tensor:
    """Draw latents [B, C, h, w] float32, scaled as the denoiser expects them, from the device's global generator.

    Nothing is drawn where `moments` are the latents themselves.
    """
    if moments.shape[1] == vae.config.latent_channels:
        return scale_latents(vae, moments)
    return scale_latents(vae, DiagonalGaussianDistribution(moments).sample())


def mean_latents(vae: Any, pixels: Tensor) -> Tensor:
    """[B, 3, H, W] in [-1, 1] to the latents that stand for them, [B, C, h, w], as the decoder takes them."""
    encoded = vae.encode(pixels.to(vae.dtype))
    return encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latent


def scale_latents(vae: Any, latents: Tensor) -> Tensor:
    """The autoencoder's latents as the denoiser expects them."""
    shift = vae.config.get("shift_factor") or 0.0
    return (latents - shift) * vae.config.scaling_factor
