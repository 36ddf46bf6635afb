"""Whether fingers have the proportions of real ones. No images in here.

"Annotated Hands for Generative Models" (Yang, Gandhi and Turk, arXiv 2401.15075) reports two scores of what MediaPipe
finds in generated images: its confidence, and the "mean joint ratio difference". We know the paper's abstract and the
names of the scores, not the formulas. What is computed here was chosen from the names:

- a joint's ratio is the length of the bone behind it over that of the bone before it, in three dimensions: 15 ratios,
  three a finger (wrist to first joint, first to second, and so on);
- the difference is the mean absolute one between a hand's 15 ratios and the means over real hands; smaller is better;
- the confidence is MediaPipe's score of the handedness, and an image without a hand counts as 0.

So the numbers cannot be compared with the paper's.
"""

from collections.abc import Iterable

import numpy as np

from ..errors import DataError
from .hand_skeleton import check_hands, finger_bones

SHORTEST_BONE = 0.02  # as a share of the hand's longest bone; a ratio to a shorter one is cut off there


def joint_ratios(landmarks: np.ndarray) -> np.ndarray:
    """Ratios of adjacent bones: [..., 15], thumb to pinky, each from the palm to the tip; of [..., 21, 3] in any unit.

    They do not change when a hand is moved, turned, scaled or mirrored.

    Raises:
        DataError: another shape, values that are not finite, or 21 landmarks in one place.
    """
    points = check_hands(landmarks, "landmarks")
    lengths = np.linalg.norm(finger_bones(points), axis=-1)
    longest = lengths.max(axis=(-2, -1), keepdims=True)
    if (longest <= 0).any():
        raise DataError("the landmarks of a hand are all in one place")
    lengths = np.maximum(lengths, SHORTEST_BONE * longest)
    return (lengths[..., 1:] / lengths[..., :-1]).reshape(*points.shape[:-2], 15)


def mean_joint_ratios(reference: np.ndarray) -> np.ndarray:
    """Mean ratios [15] of a reference's hands [M, 21, 3], M at least 1.

    Raises:
        DataError: no hands, another shape, or values that are not finite.
    """
    ratios = joint_ratios(reference)
    if ratios.ndim != 2 or len(ratios) == 0:
        shape = list(np.shape(reference))
        raise DataError(f"reference has shape {shape}; it must be [hands, 21, 3] with a hand or more")
    return ratios.mean(axis=0)


def joint_ratio_differences(landmarks: np.ndarray, mean_ratios: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each hand's ratios to `mean_ratios` [15]: [...] for [..., 21, 3].

    Raises:
        DataError: another shape or values that are not finite.
    """
    return np.abs(joint_ratios(landmarks) - mean_ratios).mean(axis=-1)


def mean_joint_ratio_difference(landmarks: np.ndarray, reference: np.ndarray) -> float:
    """Mean over hands [N, 21, 3] of their difference to the mean ratios of a reference [M, 21, 3]; nan for N = 0.

    Even the reference's own hands differ from their mean: compare with their value.

    Raises:
        DataError: a reference without hands, another shape, or values that are not finite.
    """
    differences = joint_ratio_differences(landmarks, mean_joint_ratios(reference))
    return float(differences.mean()) if differences.size else float("nan")


def mean_confidence(scores: Iterable[float | None]) -> float:
    """Mean of MediaPipe's scores of images, 0 for None (no hand was found); nan for no images."""
    values = [0.0 if score is None else score for score in scores]
    return float(np.mean(values)) if values else float("nan")
