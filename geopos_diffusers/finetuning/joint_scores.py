"""How far the joints of drawn hands lie from where they should; beside `hand_scores` all that is taken of `metrics`."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..metrics.hand_detection import HandDetector
from ..metrics.joint_error import closest_hand, relative_joint_error


class JointScorer:
    """Finds the hands of drawn images. Holds a detector until `close`.

    Raises:
        MissingDependencyError: mediapipe or its model is missing.
    """

    def __init__(self) -> None:
        self._detector = HandDetector(presence=False)

    def close(self) -> None:
        self._detector.close()

    def errors(self, images: Sequence[Image.Image], keypoints: Sequence[Sequence[Sequence[float]]]) -> np.ndarray:
        """Mean distance of the 21 joints as a share of the hand's size, of each image's nearest hand; nan without one.

        Args:
            keypoints: [N, 21, 2] where the joints should be, in pixels of the images.
        """
        return np.array(
            [self._error(image, np.asarray(wanted)) for image, wanted in zip(images, keypoints, strict=True)]
        )

    def _error(self, image: Image.Image, wanted: np.ndarray) -> float:
        hands = [hand.landmarks for hand in self._detector.detect(image)]
        if not hands:
            return float("nan")
        return float(relative_joint_error(hands[closest_hand(np.stack(hands), wanted)], wanted))


def summarise(errors: np.ndarray) -> dict[str, float]:
    """hands_found: share of images with a hand. joint_error: its mean over these. joint_error_all: over all images,
    where one without a hand counts 1, a whole hand's size."""
    found = np.isfinite(errors)
    scores = {"hands_found": float(found.mean()), "joint_error_all": float(np.where(found, errors, 1.0).mean())}
    return scores if not found.any() else {**scores, "joint_error": float(errors[found].mean())}
