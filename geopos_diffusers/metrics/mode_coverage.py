"""Share of the real data's modes that samples cover, over bins of k-means (Richardson and Weiss, arXiv 1805.12462).

The bins are made of real features once. Samples go into the bin of the nearest centre, and each bin's share of the
samples is compared with its share of the real data.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..errors import DataError

SIGNIFICANCE = 1.96  # of the two-sided test of two shares: 5%
ITERATIONS = 100
MINIMUM_REAL = 5  # real images a bin, below which a bin's share says nothing


@dataclass(frozen=True)
class ModeBins:
    """Centres of the bins [K, D], and how many real images lie in each [K]."""

    centers: np.ndarray
    real_counts: np.ndarray


@dataclass(frozen=True)
class ModeCoverage:
    """How samples spread over the bins.

    covered: share of bins that hold a sample, and no significantly smaller share of the samples than of the real data;
        1 is best.
    different: share of bins that differ significantly in either direction (NDB / K); 0 is best, 0.05 is chance.
    jensen_shannon: divergence of the two histograms in bits, 0 (equal) to 1 (nothing in common).
    """

    covered: float
    different: float
    jensen_shannon: float


def fit_bins(real: np.ndarray, bins: int, seed: int) -> ModeBins:
    """Cluster real features [N, D] into `bins` bins with k-means, begun with k-means++; fewer where images are equal.

    Raises:
        DataError: fewer than MINIMUM_REAL images a bin.
    """
    if real.ndim != 2 or bins < 1 or len(real) < MINIMUM_REAL * bins:
        raise DataError(
            f"{len(real)} images for {bins} bins; at least 1 bin and {MINIMUM_REAL} images a bin are needed"
        )
    real = real.astype(np.float64)
    centers = first_centers(real, bins, np.random.default_rng(seed))
    assigned = None
    for _ in range(ITERATIONS):
        nearest = nearest_centers(real, centers)
        if assigned is not None and (nearest == assigned).all():
            break
        assigned = nearest
        centers = np.stack([real[nearest == index].mean(0) for index in np.unique(nearest)])
    return ModeBins(centers, count_in_bins(real, centers))


def first_centers(real: np.ndarray, bins: int, generator: np.random.Generator) -> np.ndarray:
    """[bins, D] rows of real [N, D], far apart: k-means++ (Arthur and Vassilvitskii, SODA 2007, section 2 and 5).

    Of some candidates, drawn by their squared distance from the rows that are chosen, the one that lowers the sum of
    these distances most is taken; a single candidate often falls into a mode that has a centre already.
    """
    chosen = [generator.integers(len(real))]
    distances = squared_distances(real, real[chosen])[:, 0]
    while len(chosen) < bins and distances.sum() > 0:
        candidates = generator.choice(len(real), 2 + int(math.log(bins)), p=distances / distances.sum())
        remaining = np.minimum(distances[:, None], squared_distances(real, real[candidates]))
        best = remaining.sum(0).argmin()
        chosen.append(candidates[best])
        distances = remaining[:, best]
    return real[chosen]


def mode_coverage(samples: np.ndarray, bins: ModeBins) -> ModeCoverage:
    """Coverage of the bins by samples' features [M, D].

    Raises:
        DataError: no samples, or features of another length than the bins'.
    """
    if samples.ndim != 2 or not len(samples) or samples.shape[1] != bins.centers.shape[1]:
        raise DataError(f"samples of shape {samples.shape}; [1 or more, {bins.centers.shape[1]}] is needed")
    return compare_counts(count_in_bins(samples, bins.centers), bins.real_counts)


def compare_counts(counts: np.ndarray, real_counts: np.ndarray) -> ModeCoverage:
    """Coverage from the numbers of samples and of real images in each bin, [K] each."""
    total, real_total = counts.sum(), real_counts.sum()
    share, real_share = counts / total, real_counts / real_total
    pooled = (counts + real_counts) / (total + real_total)
    deviation = np.sqrt(pooled * (1 - pooled) * (1 / total + 1 / real_total))
    difference = share - real_share
    smaller, larger = difference < -SIGNIFICANCE * deviation, difference > SIGNIFICANCE * deviation
    return ModeCoverage(
        # Of a bin with few real images the test alone cannot say that it is missed.
        covered=float(((counts > 0) & ~smaller).mean()),
        different=float((smaller | larger).mean()),
        jensen_shannon=jensen_shannon_divergence(share, real_share),
    )


def jensen_shannon_divergence(first: np.ndarray, second: np.ndarray) -> float:
    """Divergence in bits of two distributions [K] over the same bins; its square root is a distance."""
    middle = (first + second) / 2

    def relative_entropy(shares: np.ndarray) -> float:
        some = shares > 0
        return float((shares[some] * np.log(shares[some] / middle[some])).sum())

    divergence = (relative_entropy(first) + relative_entropy(second)) / (2 * math.log(2))
    return min(max(divergence, 0.0), 1.0)


def count_in_bins(features: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """[K]: how many of features [N, D] are nearest to each of centres [K, D]."""
    return np.bincount(nearest_centers(features, centers), minlength=len(centers))


def nearest_centers(features: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """[N]: which of centres [K, D] is nearest to each of features [N, D]."""
    return squared_distances(features, centers).argmin(1)


def squared_distances(left: np.ndarray, right: np.ndarray, precision: type = np.float64) -> np.ndarray:
    """[N, M] squared Euclidean distances of features [N, D] and [M, D], computed in `precision`, never below 0."""
    left, right = left.astype(precision, copy=False), right.astype(precision, copy=False)
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1)[None] - 2 * left @ right.T
    return np.maximum(squares, 0.0, out=squares)
