"""Multi-scale structural similarity of images (Wang et al., Asilomar 2003), and its mean over pairs of a set.

The mean over pairs is the diversity measure of Odena et al. (arXiv 1610.09585, section 4.2): a set of like images has a
high one, so samples are compared with real images. With K scales the weights are the paper's first K, made to sum to 1.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import DataError

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, DEVIATION = 7, 1.5  # pixels; the paper's 11 would not fit into images of 32 pixels on three scales
STABILITY = (0.01**2, 0.03**2)  # of values in [0, 1]


def ms_ssim(first: Tensor, second: Tensor, scales: int | None = None) -> Tensor:
    """Similarity of pairs of images [B, C, H, W] in [-1, 1]: [B], 1 for equal ones.

    Args:
        scales: how often sides are halved, plus 1; by default as often as the window fits, at most 5 times.

    Raises:
        DataError: different shapes, or sides too small for the window at the last scale.
    """
    if first.shape != second.shape or first.dim() != 4:
        raise DataError(
            f"images of shapes {tuple(first.shape)} and {tuple(second.shape)}; two equal [B, C, H, W] needed"
        )
    side = min(first.shape[-2:])
    fitting = sum(side // 2**scale >= WINDOW for scale in range(len(WEIGHTS)))
    scales = scales or fitting
    if not 1 <= scales <= fitting:
        raise DataError(f"{scales} scales of images of {side} pixels; 1 to {fitting} fit")
    weights = torch.tensor(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    # Variances are small differences of squares: in single precision flat windows would have some 1e-4 of contrast.
    first, second = (first.double() + 1) / 2, (second.double() + 1) / 2
    similarity = torch.ones(len(first), dtype=torch.float64)
    for scale, weight in enumerate(weights):
        luminance, contrast = _structure(first, second)
        values = contrast * luminance if scale == scales - 1 else contrast
        # A negative contrast has no real power: it counts as 0, as unlike as can be.
        similarity = similarity * values.mean((1, 2, 3)).clamp(min=0) ** weight
        first, second = functional.avg_pool2d(first, 2), functional.avg_pool2d(second, 2)
    return similarity.float()


def _structure(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The luminance term and the contrast-structure term of every window, [B, C, H', W'] each."""
    offsets = torch.arange(WINDOW, dtype=first.dtype) - WINDOW // 2
    line = torch.exp(-(offsets**2) / (2 * DEVIATION**2))
    line = line / line.sum()
    channels = first.shape[1]
    columns, rows = line.view(1, 1, -1, 1), line.view(1, 1, 1, -1)

    def blur(values: Tensor) -> Tensor:
        across = functional.conv2d(values, columns.expand(channels, 1, -1, -1), groups=channels)
        return functional.conv2d(across, rows.expand(channels, 1, -1, -1), groups=channels)

    mean_first, mean_second = blur(first), blur(second)
    variance_first = blur(first**2) - mean_first**2
    variance_second = blur(second**2) - mean_second**2
    covariance = blur(first * second) - mean_first * mean_second
    small, large = STABILITY
    luminance = (2 * mean_first * mean_second + small) / (mean_first**2 + mean_second**2 + small)
    contrast = (2 * covariance + large) / (variance_first + variance_second + large)
    return luminance, contrast


def mean_pairwise_ms_ssim(images: Tensor, pairs: int, seed: int) -> float:
    """Mean similarity of `pairs` random pairs of different images of a set [N, C, H, W] in [-1, 1].

    Raises:
        DataError: fewer than two images or no pairs.
    """
    if len(images) < 2 or pairs < 1:
        raise DataError(f"{len(images)} images and {pairs} pairs; at least 2 and 1 are needed")
    generator = np.random.default_rng(seed)
    first = generator.integers(0, len(images), pairs)
    second = (first + generator.integers(1, len(images), pairs)) % len(images)
    return ms_ssim(images[first], images[second]).mean().item()
