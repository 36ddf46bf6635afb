"""Fidelity and diversity from neighbourhoods in feature space.

Improved precision and recall (Kynkäänniemi et al., arXiv 1904.06991) and density and coverage (Naeem et al., arXiv
2002.09797). An image's neighbourhood is the ball that reaches its k-th nearest neighbour in its own set.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .mode_coverage import squared_distances

RECALL_NEIGHBOURS = 3  # as arXiv 1904.06991, section 2.1
COVERAGE_NEIGHBOURS = 5  # as arXiv 2002.09797, section 3.4


@dataclass(frozen=True)
class Neighbourhoods:
    """Scores of samples beside real images.

    precision: share of samples in a real image's neighbourhood. recall: share of real images in a sample's one.
    density: real neighbourhoods that a sample lies in, over k; about 1 for real images, and it can exceed 1.
    coverage: share of real images with a sample in their neighbourhood.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhoods(samples: np.ndarray, real: np.ndarray) -> Neighbourhoods:
    """Scores from features [M, D] of samples and [N, D] of real images. All grow with the number of images.

    Raises:
        DataError: too few images for their neighbours, or features of different lengths.
    """
    needed = max(RECALL_NEIGHBOURS, COVERAGE_NEIGHBOURS) + 1
    if min(len(samples), len(real)) < needed:
        raise DataError(f"{len(samples)} samples and {len(real)} real images; at least {needed} of each are needed")
    if samples.shape[1:] != real.shape[1:]:
        raise DataError(f"features have shapes {samples.shape} and {real.shape}; both need the same extractor")
    between = squared_distances(samples, real)
    recall_radii, coverage_radii = squared_radii(real, RECALL_NEIGHBOURS, COVERAGE_NEIGHBOURS)
    (sample_radii,) = squared_radii(samples, RECALL_NEIGHBOURS)
    in_coverage_balls = between <= coverage_radii
    return Neighbourhoods(
        precision=float((between <= recall_radii).any(1).mean()),
        recall=float((between <= sample_radii[:, None]).any(0).mean()),
        density=float(in_coverage_balls.sum(1).mean() / COVERAGE_NEIGHBOURS),
        coverage=float(in_coverage_balls.any(0).mean()),
    )


def squared_radii(features: np.ndarray, *neighbours: int) -> tuple[np.ndarray, ...]:
    """For each k of `neighbours` the squared distances [N] of features [N, D] to their k-th nearest neighbour."""
    distances = np.partition(squared_distances(features, features), neighbours, axis=1)
    return tuple(distances[:, count] for count in neighbours)  # column 0 is the image itself
