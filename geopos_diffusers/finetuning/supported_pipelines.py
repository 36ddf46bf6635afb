"""The pipelines that `geopos train text-to-image` can fine-tune, and the sizes of their images."""

import math
from typing import Any

from ..errors import ConfigError
from ..pipelines.generation import denoiser_of
from .text_families import FAMILIES


def check_supported(pipe: Any) -> None:
    """Raise ConfigError unless `pipe` is one of the pipelines that the fine-tuning script can train."""
    name = type(pipe).__name__
    # Inpainting and image-to-image checkpoints share these classes but feed the UNet more channels.
    if name not in FAMILIES or denoiser_of(pipe).config.in_channels != pipe.vae.config.latent_channels:
        raise ConfigError(
            f"{name} cannot be fine-tuned here; supported are text-to-image pipelines of the kinds "
            f"{', '.join(FAMILIES)}"
        )
    if pipe.text_encoder is None:
        raise ConfigError(f"this {name} has no text encoder (as SDXL refiners have none) and cannot be fine-tuned here")


def size_multiple(pipe: Any) -> int:
    """What the sides of images must be multiples of, in pixels."""
    if type(pipe).__name__ == "SanaPipeline":  # refuses others when it draws
        return math.lcm(32, pipe.vae_scale_factor)
    return pipe.vae_scale_factor * (denoiser_of(pipe).config.get("patch_size") or 1)


def coarsest_value(pipe: Any) -> int:
    """Pixels for one value of the coarsest feature map, which sizes of buckets are multiples of."""
    blocks = denoiser_of(pipe).config.get("down_block_types")
    # A UNet halves its feature maps at the end of each block but the last.
    return size_multiple(pipe) * (2 ** (len(blocks) - 1) if blocks else 1)
