"""The score with which MediaPipe's landmark network says that there is a hand at all.

MediaPipe 1.2 drops the hands below its threshold and does not give the score. So the same network looks once more, by
LiteRT, at the square in which MediaPipe's hand tracking would look for the hand in a video's next frame; the constants
are those of its graph `hand_landmark_landmarks_to_roi` (MediaPipe Hands, arXiv 2006.10214, section 2).
"""

import numpy as np

from ..errors import MissingDependencyError
from ..optional_packages import optional_import

# The square stands upright on the line from the wrist to the knuckles, is centred on the bounding box of these
# landmarks (without the fingers' outer joints) in its own axes, moved up by a tenth of that box and twice as large.
ROI_LANDMARKS = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)
WRIST, INDEX_KNUCKLE, MIDDLE_KNUCKLE, RING_KNUCKLE = 0, 5, 9, 13
ROI_SCALE, ROI_SHIFT = 2.0, 0.1


class HandPresence:
    """The landmark network of a HandLandmarker bundle."""

    def __init__(self, network: bytes) -> None:
        """Load the network, the content of a `.tflite` file.

        Raises:
            MissingDependencyError: the package ai_edge_litert is not installed or cannot be loaded.
        """
        try:
            with optional_import("the score of a hand's presence", "eval"):
                import cv2
                from ai_edge_litert.interpreter import Interpreter
        except MissingDependencyError:
            raise
        except ImportError as error:
            raise MissingDependencyError(f"ai_edge_litert cannot be loaded: {error}") from error
        self._cv2 = cv2
        self._network = Interpreter(model_content=network, num_threads=1)
        self._network.allocate_tensors()
        (given,) = self._network.get_input_details()
        self._input, self._size = given["index"], int(given["shape"][1])
        self._landmarks, self._presence = (each["index"] for each in self._network.get_output_details()[:2])

    def look(self, pixels: np.ndarray, landmarks: np.ndarray) -> tuple[float, np.ndarray]:
        """Look at a hand again.

        Args:
            pixels: [H, W, 3] uint8, RGB.
            landmarks: [21, 2 or 3] in pixels, as MediaPipe found them.

        Returns:
            The score in [0, 1] that there is a hand, and the landmarks [21, 2] in pixels that the network sees now.
        """
        corner, across, down = region_of_interest(landmarks)
        corners = np.array([corner, corner + across, corner + down], dtype=np.float32)
        size = self._size
        matrix = self._cv2.getAffineTransform(np.array([[0, 0], [size, 0], [0, size]], dtype=np.float32), corners)
        crop = self._cv2.warpAffine(
            pixels,
            matrix,
            (size, size),
            flags=self._cv2.INTER_LINEAR | self._cv2.WARP_INVERSE_MAP,
            borderMode=self._cv2.BORDER_REPLICATE,
        )
        self._network.set_tensor(self._input, crop[None].astype(np.float32) / 255)
        self._network.invoke()
        seen = self._network.get_tensor(self._landmarks).reshape(21, 3)[:, :2].astype(np.float64) / size
        presence = float(self._network.get_tensor(self._presence).item())
        return presence, corner + seen[:, :1] * across + seen[:, 1:] * down


def region_of_interest(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The square around a hand: its upper left corner, its upper edge and its left edge, each as (x, y) in pixels.

    `landmarks` are [21, 2 or 3]; "upper" is the side of the fingers.
    """
    points = np.asarray(landmarks, dtype=np.float64)[:, :2]
    knuckles = ((points[INDEX_KNUCKLE] + points[RING_KNUCKLE]) / 2 + points[MIDDLE_KNUCKLE]) / 2
    up = knuckles - points[WRIST]
    down = -up / np.linalg.norm(up)
    across = np.array([down[1], -down[0]])
    axes = np.stack([across, down])
    box = points[list(ROI_LANDMARKS)] @ axes.T
    low, high = box.min(axis=0), box.max(axis=0)
    centre = (low + high) / 2 - (0, ROI_SHIFT * (high - low)[1])
    side = ROI_SCALE * (high - low).max()
    return (centre - side / 2) @ axes, side * across, side * down
