"""Inpainting UNets: what is masked, what the UNet is told of the rest, and pictures of what it draws there."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..errors import ConfigError
from .latents import encode_moments, mean_latents, sample_latents, scale_latents

STROKES = 3  # at most, in one mask


def is_inpainting(pipe: Any) -> bool:
    """Whether a pipeline redraws a masked part of an image."""
    return "Inpaint" in type(pipe).__name__


def random_masks(count: int, height: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """Rectangles and strokes, one or the other with equal chance. [count, 1, height, width], 1 where to redraw.

    A rectangle has sides of a quarter to all of the image's. Strokes are one to three lines between random points,
    0.04 to 0.15 of the smaller side to each side of them. All random numbers are the CPU's.

    Args:
        generator: of the CPU; None for the global one.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    y = ((torch.arange(height) + 0.5) / height).view(1, 1, height, 1)
    x = ((torch.arange(width) + 0.5) / width).view(1, 1, 1, width)
    sides = 0.25 + 0.75 * uniform(2, 1, 1)
    starts = (1 - sides) * uniform(2, 1, 1)
    inside = [
        (place >= starts[:, axis : axis + 1]) & (place < (starts + sides)[:, axis : axis + 1])
        for axis, place in enumerate((y, x))
    ]
    scale = torch.tensor([height, width]) / min(height, width)  # distances are in shares of the smaller side
    ends, radii = uniform(STROKES, 2, 2) * scale, 0.04 + 0.11 * uniform(STROKES, 1, 1)
    drawn = torch.arange(STROKES).view(1, -1) <= (uniform(1) * STROKES).floor()
    from_y, from_x, to_y, to_x = (ends[:, :, end, axis, None, None] for end in (0, 1) for axis in (0, 1))
    along_y, along_x = to_y - from_y, to_x - from_x
    offset_y, offset_x = y * scale[0] - from_y, x * scale[1] - from_x
    length = (along_y.square() + along_x.square()).clamp(min=1e-8)
    place = ((offset_y * along_y + offset_x * along_x) / length).clamp(0, 1)
    distance = (offset_y - place * along_y).square() + (offset_x - place * along_x).square()
    strokes = ((distance <= radii.square()) & drawn[:, :, None, None]).any(1, keepdim=True)
    return torch.where(uniform(1, 1, 1) < 0.5, inside[0] & inside[1], strokes).float()


def masked_channels(vae: Any, pixels: Tensor, masks: Tensor, sampled: bool = True) -> Tensor:
    """What the UNet sees beside the noisy latents: the mask and the latents of the rest, [B, 1 + C, h, w] float32.

    Args:
        pixels: [B, 3, H, W] in [-1, 1]. masks: [B, 1, H, W], 1 where to redraw.
        sampled: draw the latents, as in training, from the device's global generator; or take their mode.
    """
    rest = pixels * (masks < 0.5)  # 0 is grey, as in the pipelines
    if sampled:
        latents = sample_latents(vae, encode_moments(vae, rest))
    else:
        latents = scale_latents(vae, mean_latents(vae, rest).float())
    return torch.cat([F.interpolate(masks, size=latents.shape[-2:]), latents], 1)


class Inpainting:
    """What an inpainting model is trained and shown with.

    Args:
        args: with `inpaint_masks` and `seed`.

    Raises:
        ConfigError: an option that cannot go with such a model.
    """

    def __init__(self, pipe: Any, args: Any) -> None:
        self.pipe, self.args = pipe, args
        if args.cache_latents:
            raise ConfigError("inpainting models are told the masked images too, so cache_latents cannot go with them")
        for name in ("evaluate_every", "class_prompt"):
            if getattr(args, name) is not None:
                raise ConfigError(f"{name} draws images of prompts alone, which an inpainting model cannot")

    def masks(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> Tensor:
        """What is redrawn of a batch's images, [B, 1, H, W]. generator: see `random_masks`."""
        pixels = batch["pixels"]
        if self.args.inpaint_masks == "column":
            return (batch["mask"] >= 0.5).to(pixels)
        height, width = pixels.shape[-2:]
        return random_masks(len(pixels), height, width, generator).to(pixels.device)

    def channels(self, batch: dict[str, Any]) -> Tensor:
        """Of a training batch; see `masked_channels`."""
        return masked_channels(self.pipe.vae, batch["pixels"], self.masks(batch))

    def held_out_channels(self, batch: dict[str, Any], generator: torch.Generator, device: torch.device) -> Tensor:
        """The same with random numbers from `generator` alone."""
        pixels, masks = batch["pixels"].to(device), self.masks(batch, generator).to(device)
        return masked_channels(self.pipe.vae, pixels, masks, sampled=False)

    def draw(
        self, items: Sequence[dict[str, Any]], texts: Sequence[dict[str, Any]], **options: Any
    ) -> list[Image.Image]:
        """Each item with its mask in grey, and beside it what the pipeline draws there; always from the same noise.

        Args:
            items: of image data. texts: for each, what the pipeline's call is given of a prompt.
            options: further arguments of the call.
        """
        self.pipe.set_progress_bar_config(disable=True)
        masks_generator = torch.Generator().manual_seed(self.args.seed)
        pairs = []
        for number, (item, text) in enumerate(zip(items, texts, strict=True)):
            # One by one, since items may differ in size.
            batch: dict[str, Any] = {name: item[name][None] for name in ("pixels", "mask") if name in item}
            image, mask = item["pixels"], self.masks(batch, masks_generator)[0]
            generator = torch.Generator("cpu").manual_seed(self.args.seed + number)
            whole, masked = as_image(image / 2 + 0.5), as_image(image * (mask < 0.5) / 2 + 0.5)
            given = {"image": whole, "mask_image": as_image(mask), "height": whole.height, "width": whole.width}
            drawn = self.pipe(**given, **text, strength=1.0, generator=generator, **options).images[0]
            pair = Image.new("RGB", (2 * whole.width, whole.height))
            pair.paste(masked, (0, 0))
            pair.paste(drawn, (whole.width, 0))
            pairs.append(pair)
        return pairs


def as_image(pixels: Tensor) -> Image.Image:
    """[3, H, W] or [1, H, W] in [0, 1] as an RGB or grey image."""
    values = (pixels * 255).round().byte().cpu().numpy()
    return Image.fromarray(values[0] if len(values) == 1 else values.transpose(1, 2, 0))
