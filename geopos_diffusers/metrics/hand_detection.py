"""Finds the hands of an image and the 21 landmarks of each, with MediaPipe's HandLandmarker.

The current `mediapipe` package has the code but no model. The two networks are taken from an older wheel of the same
package (Apache-2.0) and put together as the `.task` bundle that the HandLandmarker reads; see `hand_landmarker_task`.
"""

import io
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError, MissingDependencyError
from ..files import atomic_path
from ..optional_packages import is_installed, optional_import
from .hand_presence import HandPresence
from .quiet_library import quiet_library
from .wheel_files import Wheel, cache_directory, fetch_for, sha256_of

MODEL_WHEEL = Wheel(
    requirement="mediapipe==0.10.21",
    tags=("--platform", "manylinux_2_28_x86_64", "--python-version", "3.11", "--implementation", "cp"),
    members={
        "mediapipe/modules/palm_detection/palm_detection_full.tflite": (
            "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54"
        ),
        "mediapipe/modules/hand_landmark/hand_landmark_full.tflite": (
            "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3"
        ),
    },
    purpose="the hand detector's model",
)
# Names that HandLandmarker looks for in its bundle, in the order of MODEL_WHEEL.members.
BUNDLE_NAMES = ("hand_detector.tflite", "hand_landmarks_detector.tflite")
BUNDLE_FILE = "hand_landmarker-0.10.21.task"

# The palm detector expects a hand with something around it and sees little in tiny images. So an image is enlarged
# until its longer side has ENLARGED_SIZE pixels and is surrounded by a border that repeats its edge pixels, each side
# BORDER of its size. On photographs of hands that fill the image this finds nearly all, where the enlarged image
# alone gives about 80%; of photographs of faces it takes 2% for hands. Figures: docs/evaluation.md, made by
# scripts/benchmark_hand_metrics.py.
ENLARGED_SIZE = 256
BORDER = 0.25

# Nothing is seen better in an image whose longer side is above this: the palm detector sees 192 pixels a side, and the
# landmark network 224 of each hand.
REDUCED_SIZE = 2048

# The score with which a landmark network's hand counts as one; MediaPipe's default.
MINIMUM_CONFIDENCE = 0.5
MAXIMUM_HANDS = 4

# Two detections are the same hand if they share this part of the smaller one's bounding box of landmarks. Of rendered
# single hands 0.4% were found twice, with 0.1 to 1.0 shared; of pairs of hands whose boxes overlap by up to 60% of
# their width none shared more than 0.64. MediaPipe itself merges only detections that agree joint by joint.
SAME_HAND = 0.65
SYSTEM_LIBRARIES = "on Debian and Ubuntu its system libraries come with: apt-get install libegl1 libgles2 libgl1"


@dataclass(frozen=True)
class HandDetection:
    """A hand that was found.

    score: certainty of the handedness in [0, 1], the only score MediaPipe gives. It is not a quality of the image.
    presence: the landmark network's own score in [0, 1] that there is a hand at all, see `hand_presence`; None where
        it was not computed.
    landmarks: [21, 3] float64 in MediaPipe's order; x, y in pixels of the image as it was given (they may lie
        outside it), z in the same unit, smaller is nearer, 0 at the wrist.
    world_landmarks: [21, 3] float64, metres, the network's guess of the hand's true shape; the axes are those of
        `landmarks`, the origin is the hand's centre. Lengths are those of a hand of usual size, whatever its size in
        the image.
    handedness: "left" or "right", the hand of the person shown, in an image that is not mirrored.
    """

    score: float
    presence: float | None
    landmarks: np.ndarray
    world_landmarks: np.ndarray
    handedness: str


class HandDetector:
    """Finds the hands of an image. Use it as a context manager, or call `close`; one thread at a time."""

    def __init__(
        self,
        task: str | os.PathLike | None = None,
        border: float = BORDER,
        max_hands: int = MAXIMUM_HANDS,
        presence: bool = True,
    ) -> None:
        """Load the networks, from the `.task` bundle `task` or from `hand_landmarker_task()`.

        Args:
            border: what is added on each side of an image, as a share of its size; rates of different borders are
                not comparable.
            max_hands: so many hands are looked for, 1 or more.
            presence: also compute each hand's `presence`, if the package ai_edge_litert is installed.

        Raises:
            MissingDependencyError: mediapipe is not installed, or the model is neither cached nor to be fetched.
            DataError: `task` is missing or is no HandLandmarker bundle, or `max_hands` is below 1.
        """
        if max_hands < 1:
            raise DataError(f"the largest number of hands is {max_hands}; give 1 or more")
        mediapipe = import_mediapipe()
        path = find_task(task)
        self._mediapipe = mediapipe
        self._presence: HandPresence | None = None
        self.border = border
        bundle = path.read_bytes()
        self.task_path = path
        self.task_sha256 = sha256_of(bundle)
        with quiet_library():
            try:
                self._landmarker = open_landmarker(bundle, max_hands)
                # The library's warnings come with the first image; later ones are silent.
                self.detect(Image.new("RGB", (ENLARGED_SIZE, ENLARGED_SIZE)))
                if presence and presence_available():
                    self._presence = HandPresence(read_landmark_network(bundle))
            except OSError as error:
                raise MissingDependencyError(f"mediapipe cannot be loaded: {error}; {SYSTEM_LIBRARIES}") from error
            except (RuntimeError, ValueError) as error:
                raise DataError(f"{path} cannot be read as a HandLandmarker .task bundle: {error}") from error

    def __enter__(self) -> "HandDetector":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with quiet_library():
            self._landmarker.close()

    def detect(self, image: Image.Image) -> list[HandDetection]:
        """Return the hands found in `image` (any mode and size), each once; none is an empty list.

        They come in the order of the palm detector's score, so the first is the one that is found with `max_hands=1`.
        Small images are enlarged and every image gets a border first (see ENLARGED_SIZE and BORDER).
        """
        prepared, scale, offset = surround(image, self.border)
        result = self._landmarker.detect(
            self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=prepared)
        )
        height, width, _ = prepared.shape
        hands: list[HandDetection] = []
        for image_points, world_points, categories in zip(
            result.hand_landmarks, result.hand_world_landmarks, result.handedness, strict=True
        ):
            points = coordinates(image_points) * (width, height, width)
            landmarks = (points - (*offset, 0)) / scale
            if any(share_of_smaller_box(landmarks, other.landmarks) > SAME_HAND for other in hands):
                continue
            hands.append(
                HandDetection(
                    score=float(categories[0].score),
                    presence=None if self._presence is None else self._presence.look(prepared, points)[0],
                    landmarks=landmarks,
                    world_landmarks=coordinates(world_points),
                    handedness=categories[0].category_name.lower(),
                )
            )
        return hands


def import_mediapipe() -> Any:
    """The package. Raises MissingDependencyError if it, or a system library that it is linked to, is missing."""
    try:
        with optional_import("finding hands", "eval"):
            import mediapipe
            import mediapipe.tasks.python.vision
    except MissingDependencyError:
        raise
    except ImportError as error:  # a system library that mediapipe or its OpenCV is linked to
        raise MissingDependencyError(f"mediapipe cannot be loaded: {error}; {SYSTEM_LIBRARIES}") from error
    return mediapipe


def open_landmarker(bundle: bytes, max_hands: int) -> Any:
    """MediaPipe's HandLandmarker for single images."""
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.HandLandmarkerOptions(
        # The content, since the library cannot open every path (non-ASCII ones on Windows).
        base_options=BaseOptions(model_asset_buffer=bundle),
        running_mode=vision.RunningMode.IMAGE,
        num_hands=max_hands,
        min_hand_detection_confidence=MINIMUM_CONFIDENCE,
        min_hand_presence_confidence=MINIMUM_CONFIDENCE,
    )
    return vision.HandLandmarker.create_from_options(options)


def share_of_smaller_box(first: np.ndarray, second: np.ndarray) -> float:
    """The area that the bounding boxes of two hands' landmarks [21, 2 or 3] share, as a share of the smaller box."""
    boxes = [(points[:, :2].min(axis=0), points[:, :2].max(axis=0)) for points in (first, second)]
    low, high = np.maximum(boxes[0][0], boxes[1][0]), np.minimum(boxes[0][1], boxes[1][1])
    smaller = min(float(np.prod(end - start)) for start, end in boxes)
    return float(np.prod(np.clip(high - low, 0, None))) / smaller if smaller > 0 else 0.0


def coordinates(points: Iterable[Any]) -> np.ndarray:
    """[N, 3] of points with x, y and z."""
    return np.array([(point.x, point.y, point.z) for point in points], dtype=np.float64)


def surround(image: Image.Image, border: float = BORDER) -> tuple[np.ndarray, float, np.ndarray]:
    """Bring an image to a size between ENLARGED_SIZE and REDUCED_SIZE and repeat its edge pixels around it.

    Returns:
        The RGB pixels [H, W, 3] uint8 (contiguous), the factor by which the image was enlarged or, below 1, reduced,
        and its upper left corner (x, y) in them.
    """
    image = image.convert("RGB")
    longer = max(image.size)
    scale = min(max(longer, ENLARGED_SIZE), REDUCED_SIZE) / longer
    if scale != 1.0:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        # Bilinear: sharper filters leave rings around the pixels, which cost a tenth and more of the hands.
        image = image.resize(size, Image.Resampling.BILINEAR)
    across, down = round(image.width * border), round(image.height * border)
    return repeat_edges(np.asarray(image), across, down), scale, np.array([across, down], dtype=np.float64)


def repeat_edges(pixels: np.ndarray, across: int, down: int) -> np.ndarray:
    """`numpy.pad` of [H, W, 3] pixels with mode "edge", by `across` and `down` on each side, in half its time."""
    height, width, channels = pixels.shape
    padded = np.empty((height + 2 * down, width + 2 * across, channels), dtype=pixels.dtype)
    rows = padded[down : down + height]
    rows[:, across : across + width] = pixels
    rows[:, :across] = pixels[:, :1]
    rows[:, across + width :] = pixels[:, -1:]
    padded[:down] = rows[0]
    padded[down + height :] = rows[-1]
    return padded


def presence_available() -> bool:
    """Whether the package that computes the presence is installed; without it `HandDetection.presence` is None."""
    return is_installed("ai_edge_litert")


def find_task(task: str | os.PathLike | None) -> Path:
    """The `.task` bundle that was given, or that of `hand_landmarker_task()`.

    Raises:
        MissingDependencyError: none was given, and ours is neither cached nor to be fetched.
        DataError: it is not a file.
    """
    path = Path(task) if task is not None else hand_landmarker_task()
    if not path.is_file():
        raise DataError(f"the hand detector's model {path} is not a file; give a HandLandmarker .task bundle")
    return path


def hand_landmarker_task() -> Path:
    """Path of the HandLandmarker bundle in the user's cache, made on the first call (a download of 36 MB).

    Raises:
        MissingDependencyError: it is not cached and pip or a registry is missing.
        DataError: the registry's files are not the known ones.
    """
    path = cache_directory() / BUNDLE_FILE
    if not is_known_bundle(path):
        contents = fetch_for(path, MODEL_WHEEL)
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as bundle:
            for name, member in zip(BUNDLE_NAMES, MODEL_WHEEL.members, strict=True):
                bundle.writestr(zipfile.ZipInfo(name), contents[member])
    return path


def is_known_bundle(path: Path) -> bool:
    """Whether `path` is a bundle with just the networks of MODEL_WHEEL, undamaged."""
    try:
        with zipfile.ZipFile(path) as bundle:
            found = [sha256_of(bundle.read(name)) for name in BUNDLE_NAMES]
    except (OSError, KeyError, zipfile.BadZipFile):
        return False
    return found == list(MODEL_WHEEL.members.values())


def read_landmark_network(bundle: bytes) -> bytes:
    """The network of landmarks and presence in a `.task` bundle."""
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return archive.read(BUNDLE_NAMES[1])
