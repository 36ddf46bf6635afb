"""Vendi score: the effective number of different images in a set (Friedman and Dieng, arXiv 2210.02410)."""

import numpy as np

from ..errors import DataError


def vendi_score(features: np.ndarray) -> float:
    """exp of the entropy of the eigenvalues of K / N, with the cosine of features [N, D] as likeness K.

    1 for N equal images, N for N images without likeness (features at right angles). Features of zero length are like
    nothing but themselves.

    Raises:
        DataError: no images.
    """
    if features.ndim != 2 or not len(features):
        raise DataError(f"features of shape {features.shape}; [1 or more, D] is needed")
    count = len(features)
    lengths = np.linalg.norm(features.astype(np.float64), axis=1)
    known = lengths > 0
    directions = features[known] / lengths[known, None]
    # The N x N and the D x D matrix share their eigenvalues; the smaller one is the cheaper.
    product = directions @ directions.T if len(directions) <= directions.shape[1] else directions.T @ directions
    values = np.linalg.eigvalsh(product) / count
    values = np.concatenate([values[values > 1e-12], np.full(count - known.sum(), 1 / count)])
    return max(float(np.exp(-(values * np.log(values)).sum())), 1.0)  # rounding can end just below
