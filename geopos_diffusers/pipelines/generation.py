"""Drawing images from prompts: one seed an image, so that an image does not depend on the batch it was drawn in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image


@dataclass(frozen=True)
class Generated:
    """One drawn image. `index` counts over the whole request; `seed` alone fixes its starting noise."""

    index: int
    prompt: str
    seed: int
    image: Image.Image


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
) -> Iterator[Generated]:
    """Draw `num_images` images (default: one a prompt), going round the prompts; image i has seed `seed + i`.

    Args:
        pipe: a diffusers text-to-image pipeline.
        guidance_scale: None for the pipeline's own default.
        height: in pixels; None for the pipeline's own default.
        width: in pixels; None for the pipeline's own default.
        batch_size: images drawn at a time. The last digits of an image may depend on it.

    Yields:
        The images in order, as each batch is done.

    Raises:
        ConfigError: an option that the pipeline refuses, such as a height that its VAE cannot make.
    """
    import torch

    from ..errors import ConfigError

    total = len(prompts) if num_images is None else num_images
    chosen = [(i, prompts[i % len(prompts)], seed + i) for i in range(total)]
    options: dict[str, Any] = {"guidance_scale": guidance_scale, "height": height, "width": width}
    options = {name: value for name, value in options.items() if value is not None}
    pipe.set_progress_bar_config(disable=True)
    for start in range(0, total, batch_size):
        batch = chosen[start : start + batch_size]
        # CPU generators: the same noise on every device.
        generators = [torch.Generator("cpu").manual_seed(image_seed) for _, _, image_seed in batch]
        if negative_prompt is not None:
            options["negative_prompt"] = [negative_prompt] * len(batch)
        try:
            images = pipe(
                prompt=[prompt for _, prompt, _ in batch], generator=generators, num_inference_steps=steps, **options
            ).images
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{type(pipe).__name__} cannot draw with these options: {error}") from error
        for (index, prompt, image_seed), image in zip(batch, images, strict=True):
            yield Generated(index, prompt, image_seed, image)
