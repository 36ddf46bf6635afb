"""Autoencoders of images, whatever their class: loading one, encoding and decoding."""

from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from torch import Tensor, nn

from ..errors import ConfigError, GeoPosError
from ..pipelines.loading import resolve_model
from .autoencoder_parts import DECODING, ENCODING, is_decoding


@dataclass
class AutoencoderOwner:
    """What holds an autoencoder as a pipeline would. pipeline: the class's name of the one it was taken out of."""

    vae: Any
    pipeline: str | None

    @property
    def components(self) -> dict[str, Any]:
        return {"vae": self.vae}


def load_autoencoder(model: str) -> AutoencoderOwner:
    """The autoencoder of a pipeline, alone, or one that was saved by itself, in float32 and from safetensors.

    Args:
        model: the name of a packaged pipeline, a folder, or a Hub id.

    Raises:
        GeoPosError: there is none, it cannot be loaded, or its class has other parts than an encoder and a decoder.
    """
    path, folder, pipeline = resolve_model(model), None, None
    try:
        try:
            index = DiffusionPipeline.load_config(path)
        except OSError:  # no pipeline
            config = AutoencoderKL.load_config(path)
        else:
            folder, pipeline = "vae", str(index.get("_class_name"))
            if not (index.get("vae") or [None])[0]:
                raise GeoPosError(f"the pipeline {path} ({pipeline}) has no vae")
            config = AutoencoderKL.load_config(path, subfolder=folder)
        name = str(config.get("_class_name"))
        kind: Any = getattr(diffusers, name, None)
        if not {"encode", "decode"} <= {*dir(kind)}:
            raise GeoPosError(f"{path} holds no autoencoder: its config names the class {name}")
        vae = kind.from_pretrained(path, subfolder=folder, use_safetensors=True, torch_dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise GeoPosError(f"cannot load an autoencoder from {path!r}: {' '.join(str(error).split())}") from error
    check_parts_of(vae)
    return AutoencoderOwner(vae, pipeline)


def check_parts_of(vae: nn.Module) -> None:
    """Raise ConfigError for an autoencoder with parts that are not known to encode or to decode."""
    names = [name for name, child in vae.named_children() if next(iter(child.parameters()), None) is not None]
    unknown = [name for name in names if name not in (*ENCODING, *DECODING)]
    if unknown or "encoder" not in names or "decoder" not in names:
        raise ConfigError(
            f"{type(vae).__name__} cannot be trained here: its parts are {', '.join(names)}, and those that are known "
            f"encode ({', '.join(ENCODING)}) or decode ({', '.join(DECODING)})"
        )


def takes_clips(vae: nn.Module) -> bool:
    """Whether its convolutions are of clips, [B, C, frames, H, W], of which an image is one frame."""
    return any(isinstance(module, nn.Conv3d) for module in vae.modules())


def encode(vae: Any, pixels: Tensor) -> tuple[Tensor, Any]:
    """Images [B, 3, H, W] in [-1, 1] to latents, as `decode` takes them, and the distribution that they are the mode
    of, None where the autoencoder has none. Of a codebook, latents are those before it."""
    encoded = vae.encode(pixels[:, :, None] if takes_clips(vae) else pixels)
    if hasattr(encoded, "latent_dist"):
        return encoded.latent_dist.mode(), encoded.latent_dist
    return encoded.latents if hasattr(encoded, "latents") else encoded.latent, None


def decode(vae: Any, latents: Tensor) -> tuple[Tensor, Tensor | None]:
    """Latents to images [B, 3, H, W] float32, about in [-1, 1], and the mean commitment loss of a codebook."""
    decoded = vae.decode(latents)
    images = decoded.sample[:, :, 0] if takes_clips(vae) else decoded.sample
    commitment = getattr(decoded, "commit_loss", None)
    return images.float(), None if commitment is None else commitment.float().mean()


class Autoencoding(nn.Module):
    """One forward pass of training, so that several processes exchange the gradients of all that it uses.

    Args:
        trains_encoder: gradients reach the encoder too. sampled: latents are drawn from their distribution, by the
            global generators; else they are its mode. encodes_again: see `forward`.
    """

    def __init__(self, vae: nn.Module, trains_encoder: bool, sampled: bool, encodes_again: bool) -> None:
        super().__init__()
        self.vae, self.trains_encoder, self.sampled, self.encodes_again = vae, trains_encoder, sampled, encodes_again

    def train(self, mode: bool = True) -> "Autoencoding":
        super().train(mode)
        if not self.trains_encoder:
            for name, child in self.vae.named_children():
                if not is_decoding(name):
                    child.eval()
        return self

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """
        Args:
            pixels: [B, 3, H, W] in [-1, 1].

        Returns:
            "images": the reconstruction, [B, 3, H, W]. "kl": of the latents to a standard normal distribution, summed
            over them, mean over images; where there is a distribution and the encoder trains. "commitment": of a
            codebook. "consistency": mean squared difference of the latents to those of the reconstruction, with
            `encodes_again`.
        """
        with torch.set_grad_enabled(self.trains_encoder and torch.is_grad_enabled()):
            mode, distribution = encode(self.vae, pixels)
        latents = distribution.sample() if self.sampled else mode
        images, commitment = decode(self.vae, latents)
        found = {"images": images}
        if self.trains_encoder and distribution is not None:
            found["kl"] = distribution.kl().float().mean()
        if self.trains_encoder and commitment is not None:
            found["commitment"] = commitment
        if self.encodes_again:
            again, _ = encode(self.vae, images)
            found["consistency"] = nn.functional.mse_loss(again.float(), latents.float())
        return found


def sample_size(vae: Any) -> int | None:
    """Pixels a side of the images that it was made for, where its config tells."""
    size = vae.config.get("sample_size")
    return size if isinstance(size, int) else None
