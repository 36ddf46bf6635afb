"""How far a hand's joints lie from a given pose. No images in here.

Joint error of HandRefiner (Lu et al., arXiv 2311.17957): the pixel distances between the joints of the pose that was
asked for and those found in the generated image, summed over the 21 joints; smaller is better. A sum of pixels grows
with the image's size and with the hand in it. So there is `relative_joint_error` beside it, which does not.

Chosen here: joints are matched by their number in MediaPipe's order; where an image has several hands, the one nearest
to the pose is taken (`closest_hand`), whether it is called a left or a right hand.
"""

import numpy as np

from ..errors import DataError
from .hand_skeleton import check_hands


def joint_distances(landmarks: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """Distances in the image of the 21 joints: [..., 21] pixels, of [..., 21, 2 or 3] to [..., 21, 2] pixels.

    Raises:
        DataError: other shapes or values that are not finite.
    """
    found = check_hands(landmarks, "landmarks", (2, 3))[..., :2]
    wanted = check_hands(keypoints, "keypoints", (2,))
    try:
        return np.linalg.norm(found - wanted, axis=-1)
    except ValueError as error:
        raise DataError(f"landmarks {list(found.shape)} and keypoints {list(wanted.shape)} do not match") from error


def joint_error(landmarks: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """Sum of the 21 joints' distances in pixels: a number for [21, 2 or 3] and [21, 2], [...] for more hands.

    Of images of one size only; both in the pixels of the image.

    Raises:
        DataError: other shapes or values that are not finite.
    """
    return joint_distances(landmarks, keypoints).sum(axis=-1)


def relative_joint_error(landmarks: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """Mean of the 21 joints' distances as a share of the hand's size: [...], 0 for the very pose.

    The size is the longer side of the box around the given key points, so what was generated does not change it.

    Raises:
        DataError: other shapes, values that are not finite, or key points that are all in one place.
    """
    distances = joint_distances(landmarks, keypoints)
    size = np.ptp(np.asarray(keypoints, dtype=np.float64), axis=-2).max(axis=-1)
    if (size <= 0).any():
        raise DataError("the given key points of a hand are all in one place")
    return distances.mean(axis=-1) / size


def closest_hand(hands: np.ndarray, keypoints: np.ndarray) -> int:
    """Which of the hands [H, 21, 2 or 3], H at least 1, has the smallest joint error to the key points [21, 2].

    Raises:
        DataError: no hands, other shapes or values that are not finite.
    """
    if len(hands) == 0:
        raise DataError("no hand to compare with the given key points")
    return int(np.argmin(joint_error(hands, keypoints)))
