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
MINIMUM_IMAGES = max(RECALL_NEIGHBOURS, COVERAGE_NEIGHBOURS) + 1
CHUNK = 1000  # rows of distances held at once: 10,000 images have 100 million of them


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


def neighbourhoods(samples: np.ndarray, real: np.ndarray, precision: type = np.float64) -> Neighbourhoods:
    """Scores from features [M, D] of samples and [N, D] of real images. All depend on the numbers of images.

    Args:
        precision: of the distances; np.float32 takes half of the time and errs by about 1e-6 of the squared lengths.

    Raises:
        DataError: too few images for their neighbours, or features of different lengths.
    """
    if min(len(samples), len(real)) < MINIMUM_IMAGES:
        raise DataError(
            f"{len(samples)} samples and {len(real)} real images; at least {MINIMUM_IMAGES} of each are needed"
        )
    if samples.shape[1:] != real.shape[1:]:
        raise DataError(f"features have shapes {samples.shape} and {real.shape}; both need the same extractor")
    samples, real = samples.astype(precision, copy=False), real.astype(precision, copy=False)
    recall_radii, coverage_radii = squared_radii(real, RECALL_NEIGHBOURS, COVERAGE_NEIGHBOURS, precision=precision)
    (sample_radii,) = squared_radii(samples, RECALL_NEIGHBOURS, precision=precision)
    precise = dense = 0
    recalled, covered = np.zeros(len(real), dtype=bool), np.zeros(len(real), dtype=bool)
    for start in range(0, len(samples), CHUNK):
        between = squared_distances(samples[start : start + CHUNK], real, precision)
        in_coverage_balls = between <= coverage_radii
        precise += int((between <= recall_radii).any(1).sum())
        dense += int(in_coverage_balls.sum())
        recalled |= (between <= sample_radii[start : start + CHUNK, None]).any(0)
        covered |= in_coverage_balls.any(0)
    return Neighbourhoods(
        precision=precise / len(samples),
        recall=float(recalled.mean()),
        density=dense / len(samples) / COVERAGE_NEIGHBOURS,
        coverage=float(covered.mean()),
    )


def squared_radii(features: np.ndarray, *neighbours: int, precision: type = np.float64) -> tuple[np.ndarray, ...]:
    """For each k of `neighbours` the squared distances [N] of features [N, D] to their k-th nearest neighbour."""
    chunks = []
    for start in range(0, len(features), CHUNK):
        distances = squared_distances(features[start : start + CHUNK], features, precision)
        distances.partition(neighbours, axis=1)
        chunks.append(distances[:, list(neighbours)])  # column 0 is the image itself
    return tuple(np.concatenate(chunks).T)
