"""CMMD: kernel distance of CLIP embeddings (Jayasumana et al., Rethinking FID, arXiv 2401.09603).

The kernel is Gaussian with the paper's width of 10 on embeddings of length 1, and the result is multiplied by 1000. The
paper's figures are those of CLIP ViT-L/14 at 336 pixels; with other features it is another number, named after them.

What had to be chosen: the estimate is the unbiased one, as the paper writes it. Its authors' code keeps each image's
likeness to itself, which adds 1000 (1/N + 1/M) (1 - mean kernel value): about 0.005 for 1,000 images of each.
"""

import numpy as np

from .bootstrap import Interval
from .kid import kernel_distance

WIDTH = 10.0
FACTOR = 1000.0


def gaussian_kernel(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """k(a, b) = exp(-|a - b|^2 / (2 WIDTH^2)) for embeddings [N, D] and [M, D] -> [N, M]."""
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1)[None] - 2 * left @ right.T
    return np.exp(-squares / (2 * WIDTH**2))


def cmmd(evaluated: np.ndarray, reference: np.ndarray, seed: int) -> Interval:
    """CMMD of embeddings [N, D] and [M, D], scaled to length 1 here, with its 95% interval. Smaller is better.

    Raises:
        DataError: too few images, or embeddings of different lengths: see `kernel_distance`, whose interval it is.
    """
    result = kernel_distance(unit_length(evaluated), unit_length(reference), gaussian_kernel, seed)
    return Interval(*(None if end is None else FACTOR * end for end in (result.value, result.low, result.high)))


def unit_length(features: np.ndarray) -> np.ndarray:
    """Features [N, D] divided by their lengths, in double precision; those of length zero stay zero."""
    features = features.astype(np.float64)
    lengths = np.linalg.norm(features, axis=-1, keepdims=True)
    return np.divide(features, lengths, out=np.zeros_like(features), where=lengths > 0)
