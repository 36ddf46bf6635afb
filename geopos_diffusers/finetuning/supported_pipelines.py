"""The pipelines that `geopos train text-to-image` can fine-tune, and the sizes of their images."""

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import ConfigError
from ..pipelines.generation import denoiser_of
from .inpainting import is_inpainting
from .part_options import PartArguments
from .text_families import FAMILIES

logger = logging.getLogger(__name__)
FEW_LAYERS = 2
CLIP_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")


def check_supported(pipe: Any, kinds: Sequence[str] = tuple(FAMILIES)) -> None:
    """Raise ConfigError unless `pipe` is one of the pipelines that can be trained here, by their names `kinds`."""
    name = type(pipe).__name__
    if name not in kinds:
        raise ConfigError(f"{name} cannot be fine-tuned here; supported are {', '.join(kinds)}")
    latents, channels = pipe.vae.config.latent_channels, denoiser_of(pipe).config.in_channels
    wanted = 2 * latents + 1 if is_inpainting(pipe) else latents
    if channels != wanted:  # image-to-image and older inpainting checkpoints share these classes
        raise ConfigError(
            f"this {name} cannot be fine-tuned here: its denoiser has {channels} input channels instead of {wanted}"
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


def warn_of_few_layers(parameters: Iterable[str], args: PartArguments, model: Any) -> None:
    """Say so where hardly any layer is patched, though the choice was left to the default, as of SD3's transformer.

    Args:
        parameters: the names of what is trained.
    """
    patched = [name.removesuffix(".geo_weight") for name in parameters if name.endswith("geo_weight")]
    if args.patches and args.target_modules is None and len(patched) < FEW_LAYERS:
        logger.warning(
            "only %s of this %s can be patched, since the rest has no convolutions: train lora too",
            *(" and ".join(patched), type(model).__name__),
        )
