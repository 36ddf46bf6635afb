"""Counts raised fingers from the 21 landmarks of a hand, and scores the counts. No images in here."""

from collections.abc import Sequence

import numpy as np

WRIST = 0
THUMB_JOINT, THUMB_TIP = 3, 4
MIDDLE_KNUCKLE, MIDDLE_JOINT, PINKY_KNUCKLE = 9, 10, 17
# Of index, middle, ring and pinky: the joint nearer to the knuckle (PIP), and the tip.
FINGER_JOINTS, FINGER_TIPS = (6, 10, 14, 18), (8, 12, 16, 20)

# Chosen on the photographs of train.parquet and on rendered hands together; see docs/evaluation.md.
FINGER_REACH = 1.2
THUMB_REACH = 1.07
THUMB_CLEARANCE = 0.77

COUNTS = tuple(range(6))


def raised_fingers(landmarks: np.ndarray) -> np.ndarray:
    """Which fingers are raised, thumb to pinky: [..., 5] bool of landmarks [..., 21, 2 or 3] in MediaPipe's order.

    All rules compare distances within the image (x and y; the depth that MediaPipe guesses did not help), so they
    do not change when the hand is moved, turned, mirrored or scaled:

    - a finger is raised if its tip is FINGER_REACH times as far from the wrist as its middle joint is;
    - the thumb is raised if its tip is THUMB_REACH times as far from the pinky's knuckle as the thumb's last joint is
      (it points away from the palm), and THUMB_CLEARANCE palm lengths (wrist to middle knuckle) away from the middle
      finger's joint (it does not lie on the bent fingers).
    """
    points = np.asarray(landmarks, dtype=np.float64)[..., :2]

    def distance(first: int, second: int) -> np.ndarray:
        return np.linalg.norm(points[..., first, :] - points[..., second, :], axis=-1)

    thumb = (distance(THUMB_TIP, PINKY_KNUCKLE) > THUMB_REACH * distance(THUMB_JOINT, PINKY_KNUCKLE)) & (
        distance(THUMB_TIP, MIDDLE_JOINT) > THUMB_CLEARANCE * distance(WRIST, MIDDLE_KNUCKLE)
    )
    fingers = [
        distance(tip, WRIST) > FINGER_REACH * distance(joint, WRIST)
        for joint, tip in zip(FINGER_JOINTS, FINGER_TIPS, strict=True)
    ]
    return np.stack([thumb, *fingers], axis=-1)


def count_fingers(landmarks: np.ndarray) -> int:
    """Number of raised fingers, 0 to 5, of one hand's landmarks [21, 2 or 3]."""
    return int(raised_fingers(landmarks).sum())


def confusion_matrix(expected: Sequence[int], counted: Sequence[int | None]) -> np.ndarray:
    """[6, 7] numbers of images: row = fingers expected, column = fingers counted, last column = no hand found."""
    matrix = np.zeros((len(COUNTS), len(COUNTS) + 1), dtype=np.int64)
    for wanted, found in zip(expected, counted, strict=True):
        matrix[wanted, len(COUNTS) if found is None else found] += 1
    return matrix


def count_scores(expected: Sequence[int | None], counted: Sequence[int | None]) -> tuple[np.ndarray, np.ndarray]:
    """Per image [N]: 1 if the count is right and 0 if not, and the absolute error in fingers.

    Both are nan where no number is expected or no hand was found: whether hands are found is the detection rate's
    subject.
    """
    errors = np.array(
        [
            np.nan if wanted is None or found is None else abs(wanted - found)
            for wanted, found in zip(expected, counted, strict=True)
        ],
        dtype=np.float64,
    )
    right = np.where(np.isnan(errors), np.nan, errors == 0)
    return right, errors
