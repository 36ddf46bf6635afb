"""Inpainting one square in several variants, with any pipeline that diffusers can inpaint with."""

import inspect
import math
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
from PIL import Image

from ..boxes import Box
from ..errors import ConfigError, GeoPosError
from ..patching.framing import geoconv_frames
from ..patching.patched_model import geometry_models, present_config
from ..pipelines.generation import native_size
from .latent_blending import blend_latents, needs_blending
from .options import DEFAULT_SHARE, RepairOptions

NEEDED = {"prompt", "image", "mask_image", "strength"}


def inpainting_pipeline(pipe: Any) -> Any:
    """A pipeline that `inpaint` can inpaint with, of the same models, whose adapters stay; `pipe` itself if it does.

    Raises:
        ConfigError: diffusers has none for it, or one that needs more than an image, a mask and a prompt.
    """
    from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting

    name, blending = type(pipe).__name__, needs_blending(pipe)
    try:
        made = (AutoPipelineForImage2Image if blending else AutoPipelineForInpainting).from_pipe(pipe)
    except ValueError as error:
        raise ConfigError(f"{name} cannot inpaint: diffusers has no inpainting pipeline for it") from error
    if not set(inspect.signature(made.__call__).parameters) >= NEEDED - ({"mask_image"} if blending else set()):
        raise ConfigError(f"{name} cannot inpaint from an image, a mask and a prompt alone")
    made.set_progress_bar_config(disable=True)
    return made


def region_size(pipe: Any) -> int:
    """Side in pixels of the squares that a pipeline is made for.

    Raises:
        ConfigError: it does not say.
    """
    if (native := native_size(pipe)) is not None:
        return min(native)
    if not (side := getattr(pipe, "default_sample_size", None)):
        raise ConfigError(f"{type(pipe).__name__} does not say what size it is made for; give a size")
    return int(side * pipe.vae_scale_factor)


def check_size(pipe: Any, size: int) -> None:
    """Refuse a side of squares that a pipeline would round, or refuse itself once it is asked.

    Args:
        pipe: of `inpainting_pipeline`.

    Raises:
        ConfigError: names what the size must be a multiple of.
    """
    # Processors of pipelines that pack latents in twos count with it; Stable Diffusion 3's patches are apart.
    multiple = getattr(pipe, "vae_scale_factor", 1)
    if (processor := getattr(pipe, "image_processor", None)) is not None:
        multiple = processor.config.vae_scale_factor
    multiple *= getattr(pipe, "patch_size", 1)
    if not needs_blending(pipe):
        multiple = math.lcm(multiple, 8)  # which diffusers' inpainting asks for whatever the autoencoder
    if size % multiple:
        raise ConfigError(f"size must be a multiple of {multiple} pixels for {type(pipe).__name__}; got {size}")


def mean_frames(pipe: Any) -> dict[str, Box]:
    """The mean boxes of the patched components whose adapters were trained with frames, by the components' names."""
    configs = {name: present_config(model) for name, model in geometry_models(pipe).items()}
    return {name: config.default_frame for name, config in configs.items() if config and config.default_frame}


def share_of_hand(pipe: Any) -> float:
    """The share of the square's side that a hand is to fill: that of the mean box, if there are frames."""
    sides = [max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in mean_frames(pipe).values()]
    return sides[0] if sides else DEFAULT_SHARE


def inpaint(
    pipe: Any, square: Image.Image, mask: Image.Image, frame: Box, prompt: str, options: RepairOptions
) -> Iterator[tuple[int, Image.Image]]:
    """Draw what is masked anew, `options.candidates` times.

    Args:
        pipe: of `inpainting_pipeline`.
        square: RGB. mask: white where it is drawn anew, of the same size.
        frame: the hand's box in shares of the square, for components that were trained with frames.

    Yields:
        The seed and the whole square of each variant, as each batch is done.

    Raises:
        ConfigError: the pipeline refuses an option, or draws another size.
    """
    import torch

    for start in range(options.seed, options.seed + options.candidates, options.batch_size):
        seeds = range(start, min(start + options.batch_size, options.seed + options.candidates))
        count = len(seeds)
        # CPU generators: the same noise on every device.
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        given: dict[str, Any] = {"guidance_scale": options.guidance_scale, "negative_prompt": options.negative_prompt}
        given = {name: value for name, value in given.items() if value is not None}
        if "negative_prompt" in given:
            given["negative_prompt"] = [given["negative_prompt"]] * count
        if needs_blending(pipe):
            given["callback_on_step_end"] = blend_latents(pipe, square, mask, generators)
        else:
            given |= {"mask_image": [mask] * count, "height": square.height, "width": square.width}
        try:
            with ExitStack() as frames:
                for name in mean_frames(pipe):
                    frames.enter_context(geoconv_frames(getattr(pipe, name), [frame] * count))
                output = pipe(
                    prompt=[prompt] * count,
                    image=[square] * count,
                    strength=options.strength,
                    num_inference_steps=options.steps,
                    generator=generators,
                    **given,
                )
        except GeoPosError:
            raise
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{type(pipe).__name__} cannot inpaint with these options: {error}") from error
        for seed, drawn in zip(seeds, output.images, strict=True):
            if drawn.size != square.size:
                sizes = f"{drawn.width}x{drawn.height} pixels for {square.width}x{square.height}"
                raise ConfigError(f"{type(pipe).__name__} draws {sizes}; give a size that it can draw")
            yield seed, match_colours(drawn.convert("RGB"), square, mask)


def match_colours(drawn: Image.Image, square: Image.Image, mask: Image.Image) -> Image.Image:
    """`drawn`, shifted by what separates its mean colour from that of `square` where nothing was to be drawn anew.

    An autoencoder shifts colours, which would be seen as an edge around what is pasted. All three are of one size.
    """
    kept = np.asarray(mask) == 0
    if not kept.any():
        return drawn
    made = np.asarray(drawn, dtype=np.float32)
    shift = (np.asarray(square, dtype=np.float32)[kept] - made[kept]).mean(0)
    return Image.fromarray((made + shift + 0.5).clip(0, 255).astype(np.uint8))
