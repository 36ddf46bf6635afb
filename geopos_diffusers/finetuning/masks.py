"""Losses that count most within a mask."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


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

    Args:
        error: [B, C, h, w]. weight: [B, 1, h, w], or None.

    Returns:
        [B].
    """
    if weight is None:
        return error.flatten(1).mean(1)
    error = error.mean(1, keepdim=True)
    return (weight * error).flatten(1).sum(1) / weight.flatten(1).sum(1)


def share_inside(error: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """The part of the weighted squared error that lies inside the mask, over a batch: a scalar in [0, 1].

    Args:
        error: squared, [B, C, h, w]. weight: [B, 1, h, w]. mask: [B, 1, H, W] in [0, 1].
    """
    weighted = weight * error.detach().mean(1, keepdim=True)
    inside = F.interpolate(mask, size=tuple(weight.shape[-2:]), mode="area")
    return (inside * weighted).sum() / weighted.sum().clamp(min=1e-20)
