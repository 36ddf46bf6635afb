"""How unlike the images of one set are: mean similarity or distance of random pairs (Odena et al., arXiv 1610.09585,
section 4.2, with MS-SSIM; Zhu et al., BicycleGAN, arXiv 1711.11586, with LPIPS).

Neither has a best value: a set is as varied as its reference where both have the same one.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .bootstrap import Interval
from .lpips import perceptual_distance
from .ms_ssim import ms_ssim
from .subsampling import interval_about

SIDE = 128  # pixels, as arXiv 1610.09585
MAXIMUM_IMAGES = 250  # as many pairs; more would take long and narrow the interval little
BATCH_SIZE = 16


def diversity_scores(
    images: Sequence[Image.Image], seed: int, network: str = "mobilenet", maximum: int = MAXIMUM_IMAGES
) -> dict[str, Interval]:
    """Means over random pairs of a set, with 95% intervals: "ms_ssim" and "lpips_mobilenet" or "lpips_alex".

    Images are stretched to SIDE x SIDE pixels (bicubic) and paired in a ring of random order, so that each is in two
    pairs and N images make N pairs. Of fewer than two images there is no score: an Interval of None.

    Args:
        images: any modes and sizes; those that are not drawn are not looked at.
        network: of LPIPS, "mobilenet" or "alex": see `perceptual_distance`.
        maximum: at most so many images, drawn by `seed`.

    Raises:
        MissingDependencyError: the network's weights are missing.
    """
    names = ("ms_ssim", f"lpips_{network}")
    if len(images) < 2:
        return dict.fromkeys(names, Interval(None, None, None))
    order = np.random.default_rng(seed).permutation(len(images))[:maximum]
    ring = torch.stack([to_tensor(images[index]) for index in order])
    similarities, distances = ring_ms_ssim(ring), perceptual_distance(network)(ring)
    return {
        names[0]: ring_interval(similarities.numpy().astype(np.float64), 0, 1),
        names[1]: ring_interval(distances.numpy().astype(np.float64), 0, math.inf),
    }


def to_tensor(image: Image.Image) -> Tensor:
    """[3, SIDE, SIDE] float32 in [-1, 1] of an image of any mode and size."""
    image = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


@torch.inference_mode()
def ring_ms_ssim(images: Tensor) -> Tensor:
    """MS-SSIM [N] of each of images [N, 3, S, S] in [-1, 1] and the next one, cyclically."""
    pairs = zip(images.split(BATCH_SIZE), images.roll(-1, dims=0).split(BATCH_SIZE), strict=True)
    return torch.cat([ms_ssim(first, second) for first, second in pairs])


def ring_interval(values: np.ndarray, low: float, high: float) -> Interval:
    """Mean and 95% interval of values [N] of the pairs (1, 2), (2, 3) ... (N, 1), cut to [low, high].

    Pairs that share an image vary together, so its variance is that of the sum over all such pairs of pairs (Fafchamps
    and Gubert, Journal of Development Economics 83, 2007), which in a ring are neighbours.
    """
    if len(values) == 2:
        values = values[:1]  # both are the same pair
    rest = values - values.mean()
    together = (rest * (rest + np.roll(rest, 1) + np.roll(rest, -1))).sum()
    # By chance neighbours may vary against each other; pairs that share an image do not in the long run.
    variance = max(together, (rest**2).sum()) / len(values) ** 2
    return interval_about(float(values.mean()), math.sqrt(variance) if len(values) > 1 else None, low, high)
