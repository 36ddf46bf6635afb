"""Kernel distance between two sets of image features (Bińkowski et al., Demystifying MMD GANs, arXiv 1801.01401).

The number depends on the features, so it is named after them: "KID-MobileNetV2-224" cannot be compared with the KID of
papers, which use another network. Smaller is better; 0 means that the two sets look alike to the features.
"""

from collections.abc import Callable

import numpy as np

from ..errors import DataError
from .bootstrap import CONFIDENCE, Interval

MINIMUM_IMAGES = 4
SUBSETS = 200
# Kernel matrices of more images would not fit into memory; the others are left out, chosen by the seed.
MAXIMUM_IMAGES = 4000

# k(left [N, D], right [M, D]) -> [N, M]
Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def polynomial_kernel(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """k(a, b) = (a.b / D + 1)^3 for features [N, D] and [M, D] -> [N, M], as in arXiv 1801.01401, section 4."""
    return (left @ right.T / left.shape[1] + 1) ** 3


def unbiased_mmd2(left: np.ndarray, right: np.ndarray, kernel: Kernel = polynomial_kernel) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy of features [N, D] and [M, D], N and M at least 2.

    It can fall below 0 where the two sets do not differ.
    """
    subset_left, subset_right = np.ones((1, len(left))), np.ones((1, len(right)))
    return float(subset_mmd2(left, right, subset_left, subset_right, kernel)[0])


def subset_mmd2(
    left: np.ndarray,
    right: np.ndarray,
    chosen_left: np.ndarray,
    chosen_right: np.ndarray,
    kernel: Kernel = polynomial_kernel,
) -> np.ndarray:
    """`unbiased_mmd2` of S subsets, [S, N] and [S, M] of 0 and 1, with every kernel value computed once. -> [S]"""
    count_left, count_right = chosen_left.sum(1), chosen_right.sum(1)
    within_left, within_right = kernel(left, left), kernel(right, right)
    # An image's likeness to itself says nothing of the distribution: without it, the estimate has no bias.
    np.fill_diagonal(within_left, 0)
    np.fill_diagonal(within_right, 0)
    between = kernel(left, right)
    sum_left = ((chosen_left @ within_left) * chosen_left).sum(1)
    sum_right = ((chosen_right @ within_right) * chosen_right).sum(1)
    sum_between = ((chosen_left @ between) * chosen_right).sum(1)
    return (
        sum_left / (count_left * (count_left - 1))
        + sum_right / (count_right * (count_right - 1))
        - 2 * sum_between / (count_left * count_right)
    )


def kid(evaluated: np.ndarray, reference: np.ndarray, seed: int) -> Interval:
    """Kernel inception distance of features [N, D] and [M, D] with its 95% interval: see `kernel_distance`."""
    return kernel_distance(evaluated, reference, polynomial_kernel, seed)


def kernel_distance(evaluated: np.ndarray, reference: np.ndarray, kernel: Kernel, seed: int) -> Interval:
    """Squared maximum mean discrepancy of features [N, D] and [M, D] with its 95% interval.

    The value is the unbiased estimate from all images (up to MAXIMUM_IMAGES of each). The interval is that of SUBSETS
    random halves of both sets: an estimate from half of the images, drawn without replacement, scatters about the
    estimate from all just as the latter scatters about the truth (half-sampling). The bootstrap is of no use here: it
    repeats images, and a repeated image looks like a set that lacks variety.

    Raises:
        DataError: fewer than MINIMUM_IMAGES in one of the sets, or features of different lengths.
    """
    for name, features in (("evaluated", evaluated), ("reference", reference)):
        if features.ndim != 2 or len(features) < MINIMUM_IMAGES:
            raise DataError(f"{len(features)} {name} images; a kernel distance needs at least {MINIMUM_IMAGES} of each")
    if evaluated.shape[1] != reference.shape[1]:
        raise DataError(
            f"features have {evaluated.shape[1]} and {reference.shape[1]} values; both need the same network"
        )
    generator = np.random.default_rng(seed)
    evaluated, reference = (
        features[generator.permutation(len(features))[:MAXIMUM_IMAGES]].astype(np.float64)
        for features in (evaluated, reference)
    )
    chosen = [half_subsets(len(features), generator) for features in (evaluated, reference)]
    everything = [np.ones((1, len(features))) for features in (evaluated, reference)]
    subsets = [np.concatenate(pair) for pair in zip(everything, chosen, strict=True)]
    values = subset_mmd2(evaluated, reference, subsets[0], subsets[1], kernel)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values[1:], [tail, 1 - tail])
    return Interval(float(values[0]), float(low), float(high))


def half_subsets(count: int, generator: np.random.Generator) -> np.ndarray:
    """[SUBSETS, count] of 0 and 1, each row with half of the images (rounded down), drawn without replacement."""
    order = generator.permuted(np.tile(np.arange(count), (SUBSETS, 1)), axis=1)
    return (order < count // 2).astype(np.float64)
