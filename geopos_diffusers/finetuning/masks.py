"""Masks, cut out as their images are, and losses that count most within them."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..errors import DataError
from ..images.opening import open_image
from .framing import Frame, cut_out
from .records import Record


def mask_weight(mask: Tensor, size: Sequence[int], inside: float = 1.0, floor: float = 0.1) -> Tensor:
    """The weight of each latent pixel.

    Args:
        mask: [B, 1, H, W] in [0, 1], in the images' pixels. size: of the latents, h and w.
        inside, floor: weight where the mask is 1 and where it is 0; in proportion between.

    Returns:
        [B, 1, h, w]: the mean of the mask over the pixels of each latent one.
    """
    return floor + (inside - floor) * F.interpolate(mask, size=tuple(size), mode="area")


def weighted_error(error: Tensor, weight: Tensor | None) -> Tensor:
    """Each image's mean of `error`, weighted and divided by the sum of the weights; the plain mean without weights.

    It is 0 where all weights are.

    Args:
        error: [B, C, h, w]. weight: [B, 1, h, w], or None.

    Returns:
        [B].
    """
    if weight is None:
        return error.flatten(1).mean(1)
    error = error.mean(1, keepdim=True)
    return (weight * error).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp(min=1e-20)


def share_inside(error: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """The part of the weighted squared error that lies inside the mask, over a batch: a scalar in [0, 1].

    Args:
        error: squared, [B, C, h, w]. weight: [B, 1, h, w]. mask: [B, 1, H, W] in [0, 1].
    """
    weighted = weight * error.detach().mean(1, keepdim=True)
    inside = F.interpolate(mask, size=tuple(weight.shape[-2:]), mode="area")
    return (inside * weighted).sum() / weighted.sum().clamp(min=1e-20)


def read_mask(record: Record, original: tuple[int, int], frame: Frame) -> Tensor:
    """A record's mask [1, H, W] float32 in [0, 1], cut out as its image is; all ones where it has none.

    Raises:
        DataError: it cannot be read, or is of another size than the image.
    """
    if record.mask is None:
        return torch.ones(1, *frame.size)
    try:
        mask = open_image(record.mask).convert("L")
    except DataError as error:
        raise DataError(f"its mask: {error}") from error
    if mask.size != original:
        raise DataError(f"its mask has {mask.size[0]} x {mask.size[1]} pixels, the image {original[0]} x {original[1]}")
    cut = cut_out(mask, frame, Image.Resampling.BOX)
    return torch.from_numpy(np.array(cut))[None].float() / 255
