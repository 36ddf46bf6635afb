"""Scores images one by one: finds hands, asks the second judge, computes features. Each part is kept by itself.

A part's value is bytes: what the cache holds, what a worker process sends, and what `records` are made of. So fresh and
kept scores are the same to the last bit.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError
from ..images.opening import open_image
from .extractors import Extractor, extractor, extractor_identity, extractor_name
from .hand_crops import MARGIN, crop_hand, hand_box
from .hand_detection import BORDER, MAXIMUM_HANDS, HandDetection, HandDetector, find_task, presence_available
from .hand_judge import WEIGHTS_SHA256 as JUDGE_SHA256
from .hand_judge import HandJudge, Judgement, load_hand_judge
from .wheel_files import file_sha256

FORMAT = 2  # of the values; raised when what a part computes changes
HANDS, JUDGEMENT = "hands", "judgement"


@dataclass(frozen=True)
class ScoringSettings:
    """What images are scored with.

    task: a HandLandmarker `.task` bundle; None for `hand_landmarker_task()`.
    extractors: names as of `extractor`; () computes no features.
    judge: ask the second judge. presence: compute the landmark network's presence.
    """

    task: str | None = None
    extractors: tuple[str, ...] = ("mobilenet",)
    judge: bool = True
    presence: bool = True
    max_hands: int = MAXIMUM_HANDS

    @cached_property
    def components(self) -> dict[str, str]:
        """Name of each part -> what its values depend on beside the image: the cache's component.

        Raises:
            MissingDependencyError, DataError: a model that is missing and cannot be fetched, or is no model.
        """
        task = file_sha256(find_task(self.task))[:16]
        hands = f"{HANDS}/{FORMAT}/{task}/{BORDER}/{self.max_hands}/{self.presence and presence_available()}"
        parts = {HANDS: hands}
        if self.judge:
            parts[JUDGEMENT] = f"{JUDGEMENT}/{FORMAT}/{JUDGE_SHA256[:16]}"
        for name, identity in self.identities.items():
            parts[image_part(name)] = f"image/{FORMAT}/{identity}"
            parts[crop_part(name)] = f"crop/{FORMAT}/{identity}/{MARGIN}/{hands}"
        return parts

    @cached_property
    def identities(self) -> dict[str, str]:
        """What the features depend on, by the names that go with scores, such as "MobileNetV2-224"."""
        return {extractor_name(name): extractor_identity(name) for name in self.extractors}


def image_part(extractor_name: str) -> str:
    return f"image {extractor_name}"


def crop_part(extractor_name: str) -> str:
    return f"crop {extractor_name}"


@dataclass(frozen=True)
class ImageTask:
    """An image to score: which parts are wanted, and those that are known already."""

    path: Path
    sha256: str
    wanted: tuple[str, ...]
    known: Mapping[str, bytes]


class ImageScorer:
    """Scores batches of images. Models are loaded when they are first needed. Use it as a context manager."""

    def __init__(self, settings: ScoringSettings) -> None:
        self.settings = settings
        self._detector: HandDetector | None = None
        self._judge: HandJudge | None = None
        self._extractors: dict[str, Extractor] = {}

    def __enter__(self) -> "ImageScorer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._detector is not None:
            self._detector.close()
            self._detector = None

    def score(self, tasks: Sequence[ImageTask]) -> list[dict[str, bytes] | str]:
        """For each image the wanted parts by name, or why it cannot be read."""
        results: list[dict[str, bytes] | str] = []
        images: dict[int, Image.Image] = {}
        for index, task in enumerate(tasks):
            try:
                images[index] = open_image(task.path)
                results.append({})
            except DataError as error:
                results.append(str(error))
        values: dict[int, dict[str, bytes]] = {index: {} for index in images}
        crops: dict[int, Image.Image] = {}
        for index, image in images.items():
            task = tasks[index]
            if HANDS in task.wanted:
                values[index][HANDS] = encode_hands(image.size, self._detect(image))
            if any(part.startswith("crop ") for part in task.wanted):
                _, hands = decode_hands(values[index].get(HANDS) or task.known[HANDS])
                if hands:
                    crops[index] = crop_hand(image, hand_box(hands[0].landmarks))
        asked = [index for index in images if JUDGEMENT in tasks[index].wanted]
        if asked:
            for index, judgement in zip(asked, self._judged([images[index] for index in asked]), strict=True):
                values[index][JUDGEMENT] = encode_judgement(judgement)
        for name in self.settings.extractors:
            shown = extractor_name(name)
            for part, pictures in ((image_part(shown), images), (crop_part(shown), crops)):
                asked = [index for index in pictures if part in tasks[index].wanted]
                features = self._features(name, [pictures[index] for index in asked])
                for index, row in zip(asked, features, strict=True):
                    values[index][part] = row.tobytes()
                for index in images:
                    if part in tasks[index].wanted:
                        values[index].setdefault(part, b"")  # no hand, so no crop
        for index in images:
            results[index] = values[index]
        return results

    def _detect(self, image: Image.Image) -> Sequence[HandDetection]:
        if self._detector is None:
            self._detector = HandDetector(
                self.settings.task, max_hands=self.settings.max_hands, presence=self.settings.presence
            )
        return self._detector.detect(image)

    def _judged(self, images: list[Image.Image]) -> list[Judgement]:
        if self._judge is None:
            self._judge = load_hand_judge()
        return self._judge.judge(images)

    def _features(self, name: str, images: list[Image.Image]) -> np.ndarray:
        if not images:
            return np.empty((0, 0), dtype=np.float32)
        if name not in self._extractors:
            self._extractors[name] = extractor(name)
        return self._extractors[name].extract(images).astype(np.float32, copy=False)


def encode_hands(size: tuple[int, int], hands: Sequence[HandDetection]) -> bytes:
    """An image's size in pixels and its hands as JSON; floats keep their exact values."""
    return json.dumps(
        {
            "size": list(size),
            "hands": [
                {
                    "score": hand.score,
                    "presence": hand.presence,
                    "handedness": hand.handedness,
                    "landmarks": hand.landmarks.tolist(),
                    "world_landmarks": hand.world_landmarks.tolist(),
                }
                for hand in hands
            ],
        }
    ).encode()


def decode_hands(value: bytes) -> tuple[tuple[int, int], tuple[HandDetection, ...]]:
    """The inverse of `encode_hands`."""
    row = json.loads(value)
    width, height = row["size"]
    return (width, height), tuple(
        HandDetection(**_arrays(hand, "landmarks", "world_landmarks")) for hand in row["hands"]
    )


def encode_judgement(judgement: Judgement) -> bytes:
    row = {name: getattr(judgement, name) for name in ("present", "well_formed", "fingers", "right_hand")}
    arrays = {name: getattr(judgement, name).tolist() for name in ("finger_probabilities", "keypoints")}
    return json.dumps({**row, **arrays}).encode()


def decode_judgement(value: bytes) -> Judgement:
    """The inverse of `encode_judgement`."""
    return Judgement(**_arrays(json.loads(value), "finger_probabilities", "keypoints"))


def decode_features(value: bytes) -> np.ndarray:
    """[D] float32; [0] where there was no hand to crop."""
    return np.frombuffer(value, dtype=np.float32)


def _arrays(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {**row, **{name: np.array(row[name], dtype=np.float64) for name in names}}
