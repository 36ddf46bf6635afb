"""Fréchet distance of two sets of image features (Heusel et al., GANs Trained by a Two Time-Scale Update Rule, arXiv
1706.08500, equation 6): of the normal distributions with the sets' means and covariances.

The number depends on the features, so it is named after them; only with the Inception network of 2015 is it the FID of
papers. Smaller is better. It is biased upwards, the more the fewer images there are, so compare sets of equal size.

The trace of the root of the product of covariances is computed as the sum of the singular values of X Y^T, for centred
features X and Y. That is exact also where there are fewer images than features, and its cost falls with the number of
images: torchmetrics' class, with which the tests compare it, finds the eigenvalues of a D x D matrix whatever their
number, which takes 50 times as long for the many subsets of 500 images that an interval needs.
"""

import numpy as np

from ..errors import DataError

MINIMUM_IMAGES = 2


def frechet_distance(samples: np.ndarray, real: np.ndarray) -> float:
    """Squared Fréchet distance of features [N, D] and [M, D]; 0 for equal means and covariances.

    Computed in the features' own precision.

    Raises:
        DataError: fewer than two images in one of the sets, or features of different lengths.
    """
    if min(len(samples), len(real)) < MINIMUM_IMAGES:
        raise DataError(
            f"{len(samples)} samples and {len(real)} real images; at least {MINIMUM_IMAGES} of each are needed"
        )
    if samples.shape[1:] != real.shape[1:]:
        raise DataError(f"features have shapes {samples.shape} and {real.shape}; both need the same extractor")
    means = samples.mean(0) - real.mean(0)
    first, second = covariance_factor(samples), covariance_factor(real)
    root = np.linalg.svd(first @ second.T, compute_uv=False).sum(dtype=np.float64)
    variances = (first**2).sum(dtype=np.float64) + (second**2).sum(dtype=np.float64)
    return max(float((means**2).sum(dtype=np.float64) + variances - 2 * root), 0.0)


def covariance_factor(features: np.ndarray) -> np.ndarray:
    """F [K, D] with F^T F the unbiased covariance of features [N, D], and K the smaller of N and D."""
    centred = (features - features.mean(0)) / np.sqrt(len(features) - 1, dtype=features.dtype)
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(centred) > centred.shape[1] else centred
