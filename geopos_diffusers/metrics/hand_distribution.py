"""How far hands lie from those of a reference: Mahalanobis distance with a shrunk covariance. No images in here."""

from dataclasses import dataclass

import numpy as np

from ..errors import DataError

MINIMUM_HANDS = 60
FOLDS = 5
LIMIT_SHARE = 0.95


@dataclass(frozen=True)
class HandDistribution:
    """The Gaussian of a reference's vectors, made by `fit`.

    centre, scale [D]: mean and standard deviation of each component. precision [D, D]: inverse of the shrunk
    correlation matrix. shrinkage: its weight of the identity, 0 to 1. held_out [N]: distances of the reference's own
    hands, each to the Gaussian of the folds without it. limit: their 95% quantile.
    """

    centre: np.ndarray
    scale: np.ndarray
    precision: np.ndarray
    shrinkage: float
    held_out: np.ndarray
    limit: float

    @classmethod
    def fit(cls, vectors: np.ndarray, seed: int = 0) -> "HandDistribution":
        """Fit to vectors [N, D] of a reference's hands, N at least MINIMUM_HANDS.

        A hand is always nearer to a Gaussian that it helped to fit. So the reference's own distances, and the limit,
        are those of held-out hands (FOLDS folds, drawn by `seed`): about 5% of new hands of the same kind lie beyond.
        Small references give a loose limit: with 60 hands between 1% and 21% of new ones lay beyond it, with 240
        between 2% and 8%. Photographs of one person in several folds make it too low.

        Raises:
            DataError: too few hands, another shape, or values that are not finite.
        """
        vectors = check_vectors(vectors)
        if len(vectors) < MINIMUM_HANDS:
            raise DataError(f"the reference has {len(vectors)} hands; a distance to it needs at least {MINIMUM_HANDS}")
        folds = np.random.default_rng(seed).permutation(len(vectors)) % FOLDS
        held_out = np.empty(len(vectors))
        for fold in range(FOLDS):
            centre, scale, precision, _ = fit_gaussian(vectors[folds != fold])
            held_out[folds == fold] = mahalanobis(vectors[folds == fold], centre, scale, precision)
        limit = float(np.quantile(held_out, LIMIT_SHARE))
        return cls(*fit_gaussian(vectors), held_out=held_out, limit=limit)

    def distances(self, vectors: np.ndarray) -> np.ndarray:
        """Mahalanobis distances [M] of vectors [M, D]; about the root of D for hands of the reference's kind.

        Raises:
            DataError: another number of components than the reference's, or values that are not finite.
        """
        vectors = check_vectors(vectors)
        if vectors.shape[1] != len(self.centre):
            raise DataError(f"the hands have {vectors.shape[1]} components, the reference {len(self.centre)}")
        return mahalanobis(vectors, self.centre, self.scale, self.precision)

    def share_beyond(self, vectors: np.ndarray) -> float:
        """Share of the hands [M, D] that lie beyond `limit`, 0 to 1; nan for none."""
        distances = self.distances(vectors)
        return float((distances > self.limit).mean()) if len(distances) else float("nan")


def fit_gaussian(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean, scale, inverse of the shrunk correlation matrix and shrinkage of vectors [N, D].

    Lengths and angles have different units and the shrinkage treats all components alike, so they are scaled to a
    standard deviation of 1 first. A component that does not vary keeps its unit.
    """
    centre, scale = vectors.mean(axis=0), vectors.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    covariance, shrinkage = ledoit_wolf((vectors - centre) / scale)
    return centre, scale, np.linalg.inv(covariance), shrinkage


def ledoit_wolf(centred: np.ndarray) -> tuple[np.ndarray, float]:
    """Shrunk covariance [D, D] of vectors [N, D] with mean 0, and the weight of its target.

    Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices, Journal of Multivariate
    Analysis 88 (2004), section 3.2: (1 - w) S + w m I with m the mean variance, d2 = |S - m I|^2 / D,
    b2 = min(d2, sum_k |x_k x_k' - S|^2 / (D N^2)) and w = b2 / d2.
    """
    count, width = centred.shape
    sample = centred.T @ centred / count
    mean = np.trace(sample) / width
    target = mean * np.eye(width)
    # sum_k |x_k x_k' - S|^2 = sum_k |x_k|^4 - N |S|^2
    scatter = (np.square(np.square(centred).sum(axis=1)).sum() / count - np.square(sample).sum()) / count
    distance = np.square(sample - target).sum()
    weight = float(min(1.0, max(0.0, scatter / distance))) if distance > 0 else 1.0
    return (1.0 - weight) * sample + weight * target, weight


def mahalanobis(vectors: np.ndarray, centre: np.ndarray, scale: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Distances [M] of vectors [M, D]."""
    offsets = (vectors - centre) / scale
    return np.sqrt(np.maximum(np.einsum("md,de,me->m", offsets, precision, offsets, optimize=True), 0.0))


def check_vectors(vectors: np.ndarray) -> np.ndarray:
    """Vectors as float64 [N, D].

    Raises:
        DataError: another shape, or values that are not finite.
    """
    values = np.asarray(vectors, dtype=np.float64)
    if values.ndim != 2:
        raise DataError(f"the hands' vectors have shape {list(values.shape)}; they must be [hands, components]")
    if not np.isfinite(values).all():
        raise DataError(f"{(~np.isfinite(values).all(axis=1)).sum()} of the hands' vectors hold values not finite")
    return values
