"""Generating images from prompts: one seed an image, so that an image does not depend on its batch."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ..boxes import Box, check_boxes
from ..errors import ConfigError, GeoPosError

# Arguments of pipelines that start from an image, or follow one.
IMAGE_ARGUMENTS = {"image", "images", "control_image", "reference_image", "image_embeds", "image_embeddings"}
# Pipelines outside diffusers' table of text-to-image pipelines that also work without their image.
IMAGE_IS_OPTIONAL = {"BriaFibo2Pipeline", "DreamLitePipeline", "DreamLiteMobilePipeline", "Flux2KleinKVPipeline"}


@dataclass(frozen=True)
class Generated:
    """One generated image. `index` counts over the whole request; `seed` alone fixes its starting noise.

    `boxes` are where its things were asked for, in shares of the image; empty where no box was given.
    """

    index: int
    prompt: str
    seed: int
    image: Image.Image
    boxes: tuple[Box, ...] = ()

    @property
    def file_name(self) -> str:
        """Of its file in a folder of generated images."""
        return f"{self.index:05d}.png"

    @property
    def row(self) -> dict[str, Any]:
        """Its line of that folder's metadata.jsonl, which makes the folder a data set."""
        return {"file_name": self.file_name, "text": self.prompt, "seed": self.seed} | self.places

    @property
    def places(self) -> dict[str, Any]:
        """Its `box` or `boxes`, as rows of a data set have them."""
        boxes = [list(box) for box in self.boxes]
        return {} if not boxes else {"box": boxes[0]} if len(boxes) == 1 else {"boxes": boxes}


def generate_images(
    pipe: Any,
    prompts: Sequence[str],
    *,
    num_images: int | None = None,
    seed: int = 0,
    steps: int = 25,
    guidance_scale: float | None = None,
    negative_prompt: str | None = None,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = 8,
    boxes: Sequence[Box | Sequence[Box]] | None = None,
    guided_boxes: bool = False,
    images_per_seed: int = 1,
    call_arguments: Callable[[list[str]], dict[str, Any]] | None = None,
) -> Iterator[Generated]:
    """Generate `num_images` images (default: one a prompt), going round the prompts; image i has seed `seed + i`.

    Args:
        pipe: a diffusers text-to-image pipeline.
        guidance_scale: None for the pipeline's own default.
        height: in pixels; None for the pipeline's own default.
        width: in pixels; None for the pipeline's own default.
        batch_size: images generated at a time. The last digits of an image may depend on it.
        boxes: (x0, y0, x1, y1) in shares of the image, one a prompt, going round with them, or one for all: frames
            (see `set_geoconv_frames`) for an adapter that was trained with them. A list of boxes in place of one for
            several things in an image. None for what is set.
        guided_boxes: guidance strengthens the boxes too (see `set_geoconv_frames`); needs `boxes`.
        images_per_seed: so many images in a row have the same seed.
        call_arguments(prompts): what the pipeline's call is given for a batch; None for the prompts alone.

    Yields:
        The images in order, as each batch is done.

    Raises:
        ConfigError: a pipeline that does not make images from prompts alone, or an option that it refuses, such as a
            height that its VAE cannot make; boxes that are not valid or not one a prompt, or none to guide to.
        SurgeryError: boxes for a pipeline that is not patched.
    """
    import torch

    from ..patching.framing import geoconv_frames

    check_text_to_image(type(pipe))
    if guided_boxes and boxes is None:
        raise ConfigError("guided_boxes needs boxes: there is no box to guide to")
    total = len(prompts) if num_images is None else num_images
    places = [()] if boxes is None else [check_boxes(given) for given in boxes]
    if len(places) not in (1, len(prompts)):
        raise ConfigError(f"{len(places)} boxes were given for {len(prompts)} prompts; give one, or one for each")
    chosen = [
        (i, prompts[i % len(prompts)], seed + i // images_per_seed, places[i % len(places)]) for i in range(total)
    ]
    if (height is None) != (width is None) and (native := native_size(pipe)) is not None:
        # diffusers' pipelines ignore one without the other.
        height, width = height or native[0], width or native[1]
    options: dict[str, Any] = {"guidance_scale": guidance_scale, "height": height, "width": width}
    options = {name: value for name, value in options.items() if value is not None}
    pipe.set_progress_bar_config(disable=True)
    for start in range(0, total, batch_size):
        batch = chosen[start : start + batch_size]
        # CPU generators: the same noise on every device.
        generators = [torch.Generator("cpu").manual_seed(image_seed) for _, _, image_seed, _ in batch]
        if negative_prompt is not None:
            options["negative_prompt"] = [negative_prompt] * len(batch)
        texts = [prompt for _, prompt, *_ in batch]
        drawn = {"prompt": texts} if call_arguments is None else call_arguments(texts)
        try:
            with (
                nullcontext()
                if boxes is None
                else geoconv_frames(pipe, evenly_many([given for *_, given in batch]), guided=guided_boxes)
            ):
                output = pipe(**drawn, generator=generators, num_inference_steps=steps, **options)
        except GeoPosError:
            raise
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{type(pipe).__name__} cannot generate with these options: {error}") from error
        if (images := getattr(output, "images", None)) is None:
            raise ConfigError(f"{type(pipe).__name__} returns {type(output).__name__}, which holds no images")
        for (index, prompt, image_seed, given), image in zip(batch, images, strict=True):
            yield Generated(index, prompt, image_seed, image, given)


def evenly_many(places: Sequence[tuple[Box, ...]]) -> list[list[Box]]:
    """As many boxes for each image: the last repeated, which changes nothing."""
    most = max(map(len, places))
    return [[*given, *[given[-1]] * (most - len(given))] for given in places]


def check_text_to_image(pipeline: type) -> None:
    """Refuse pipelines whose call shows that they do not make images from prompts alone.

    Args:
        pipeline: a diffusers pipeline's class. One that only stands in for missing packages is let pass.

    Raises:
        ConfigError: says what it needs or makes.
    """
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

    name, names = pipeline.__name__, set(inspect.signature(pipeline.__call__).parameters)
    if names <= {"self", "args", "kwargs"}:
        return
    problem = None
    if "prompt" not in names:
        problem = "takes no prompt"
    elif "Audio" in name or any("audio" in argument for argument in names):
        problem = "makes sound"
    elif names & {"num_frames", "video_length"}:
        problem = "makes videos"
    elif needed := sorted(names & IMAGE_ARGUMENTS):
        listed = name in {known.__name__ for known in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()}
        if "Control" in name or not (listed or name in IMAGE_IS_OPTIONAL):
            problem = f"needs {' and '.join(needed)} beside the prompt"
    if problem:
        raise ConfigError(f"{name} {problem}; a text-to-image pipeline is needed, such as StableDiffusionPipeline")


def denoiser_of(pipe: Any) -> Any:
    """A pipeline's UNet or transformer; None where it has neither."""
    return getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)


def native_size(pipe: Any) -> tuple[int, int] | None:
    """Height and width in pixels of what the denoiser was configured for; None where it does not say."""
    size = getattr(getattr(denoiser_of(pipe), "config", None), "sample_size", None)
    factor = getattr(pipe, "vae_scale_factor", 1)
    if isinstance(size, int):
        size = (size, size)
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        return None
    return int(size[0] * factor), int(size[1] * factor)
