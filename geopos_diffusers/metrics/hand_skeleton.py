"""The 21 landmarks of a hand as a skeleton: indices, bones and the palm's own directions. No images in here.

MediaPipe's order: 0 the wrist, then four landmarks a finger from the palm to the tip, thumb (1-4) to pinky (17-20).
"""

from dataclasses import dataclass

import numpy as np

from ..errors import DataError

WRIST = 0
FINGER_NAMES = ("thumb", "index", "middle", "ring", "pinky")
FINGERS = np.arange(1, 21).reshape(5, 4)
KNUCKLES = FINGERS[1:, 0]  # of index, middle, ring and pinky
PALM = np.array([WRIST, *KNUCKLES])
CHAINS = np.concatenate([np.zeros((5, 1), dtype=np.int64), FINGERS], axis=1)  # [5, 5], each finger from the wrist on
TINY = 1e-12
# The sine from which a bend counts in full for the side to which a hand bends. Of 0.1 to 2, 0.2 kept most hands' side
# when one finger was bent back by 60 degrees, and agreed as often with the handedness that MediaPipe gives.
CLEAR_BEND = 0.2


@dataclass(frozen=True)
class PalmFrame:
    """Directions of palms, as unit vectors [..., 3], and their size [...].

    across: from the index's knuckle to the pinky's. inward: out of the palm's plane, to the side that fingers bend to.
    side: 1 where across x (wrist to knuckles) points inward, -1 where it points to the back, [...].
    size: root mean square distance of the wrist and the four knuckles from their centre, in the landmarks' unit (the
    centroid size of Kendall, 1984, over the root of 5).
    """

    across: np.ndarray
    inward: np.ndarray
    side: np.ndarray
    size: np.ndarray


def check_hands(landmarks: np.ndarray, name: str, sizes: tuple[int, ...] = (3,)) -> np.ndarray:
    """Landmarks as float64.

    Raises:
        DataError: another shape than [..., 21, one of `sizes`], or a value that is not finite.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.ndim < 2 or points.shape[-2] != 21 or points.shape[-1] not in sizes:
        raise DataError(f"{name} has shape {list(points.shape)}; it must be [..., 21, {' or '.join(map(str, sizes))}]")
    if not np.isfinite(points).all():
        raise DataError(f"{name} holds {(~np.isfinite(points)).sum()} values that are not finite")
    return points


def unit(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors [..., D] along `vectors`; zero vectors stay zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), TINY)


def finger_bones(points: np.ndarray) -> np.ndarray:
    """The 20 bones of hands [..., 21, D] as vectors [..., 5, 4, D]: each finger's, from the wrist to the tip."""
    return np.diff(points[..., CHAINS, :], axis=-2)


def palm_frame(points: np.ndarray) -> PalmFrame:
    """The palms' frame of hands [..., 21, 3].

    Nothing but the bends tells the inside of a palm from its back, as a mirrored left hand is a right one: `inward` is
    the side to which the finger joints (index to pinky) bend, by the sum of the sines of the 12 angles, each cut to
    CLEAR_BEND: one finger that is bent far back does not turn the whole hand over.

    Raises:
        DataError: a palm whose landmarks are all in one place.
    """
    palm = points[..., PALM, :]
    centred = palm - palm.mean(axis=-2, keepdims=True)
    size = np.sqrt((centred**2).sum(axis=-1).mean(axis=-1))
    if (size < TINY).any():
        raise DataError("the wrist and the knuckles of a hand are all in one place")
    across = unit(points[..., KNUCKLES[-1], :] - points[..., KNUCKLES[0], :])
    fingers = unit(finger_bones(points)[..., 1:, :, :])
    turns = np.cross(fingers[..., :-1, :], fingers[..., 1:, :])
    sines = (turns * across[..., None, None, :]).sum(axis=-1)
    bend = np.clip(sines, -CLEAR_BEND, CLEAR_BEND).sum(axis=(-2, -1))
    normal = unit(np.cross(across, (palm[..., 1:, :] - palm[..., :1, :]).mean(axis=-2)))
    # A positive turn about `across` takes a finger along the palm to the side of `normal`.
    side = np.where(bend < 0, -1.0, 1.0)
    return PalmFrame(across, normal * side[..., None], side, size)


def palm_thickness(points: np.ndarray) -> np.ndarray:
    """Root mean square distance of the palm's five landmarks from their best plane, over its size: [...], 0 to 0.58."""
    palm = points[..., PALM, :]
    values = np.linalg.svd(palm - palm.mean(axis=-2, keepdims=True), compute_uv=False)
    return values[..., -1] / np.maximum(np.linalg.norm(values, axis=-1), TINY)
