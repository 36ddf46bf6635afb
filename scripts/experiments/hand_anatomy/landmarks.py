"""Landmarks that MediaPipe finds in photographs, rendered hands and rendered hands with defects."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from geopos_diffusers.data.hands import render_hands
from geopos_diffusers.metrics.hand_detection import HandDetector

# How the rendered sets are drawn: the ways people count, seen from the palm or the back; and everything.
PLAIN = {"poses": "canonical", "views": ("palm", "back"), "max_tilt": 20.0, "max_rotation": 60.0}
VARIED = {"max_rotation": 60.0}
SIZE = 128
NO_DEFECT = "none"


@dataclass(frozen=True)
class FoundHands:
    """world, image: landmarks [N, 21, 3]. defects: [N] names. images: how many there were, [N] of them with a hand."""

    world: np.ndarray
    image: np.ndarray
    defects: np.ndarray
    images: int

    def select(self, chosen: np.ndarray) -> "FoundHands":
        return FoundHands(self.world[chosen], self.image[chosen], self.defects[chosen], int(chosen.sum()))


def find_hands(detector: HandDetector, images: Iterable[tuple[Image.Image, str]], name: str) -> FoundHands:
    """The most prominent hand of each image; the images come with the name of their defect."""
    world, points, defects, count = [], [], [], 0
    for image, defect in tqdm(images, desc=name, unit="image"):
        count += 1
        if hands := detector.detect(image):
            world.append(hands[0].world_landmarks)
            points.append(hands[0].landmarks)
            defects.append(defect)
    return FoundHands(np.array(world), np.array(points), np.array(defects), count)


def photographs(path: Path) -> Iterable[tuple[Image.Image, str]]:
    """The pictures of a Parquet file with the column `image`."""
    import pyarrow.parquet

    for row in pyarrow.parquet.read_table(path, columns=["image"]).to_pylist():
        yield Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"), NO_DEFECT


def rendered(count: int, seed: int, options: dict) -> Iterable[tuple[Image.Image, str]]:
    for image, attributes in render_hands(count, SIZE, seed, **options):
        yield image, attributes.get("defect") or NO_DEFECT


def collect(folder: Path, count: int, seed: int) -> dict[str, FoundHands]:
    """All sets by name. Training sets are for choosing, the others for measuring; no subject or seed is in both."""
    sources = {
        "photographs, training": photographs(folder / "train.parquet"),
        "photographs, test": photographs(folder / "test.parquet"),
        "rendered, training": rendered(count, seed, PLAIN),
        "rendered, test": rendered(count, seed + 1, PLAIN),
        "rendered in all poses, training": rendered(count, seed + 2, VARIED),
        "rendered in all poses, test": rendered(count, seed + 3, VARIED),
        "rendered with defects": rendered(2 * count, seed + 4, PLAIN | {"defects": 1.0}),
    }
    with HandDetector(max_hands=1) as detector:
        return {name: find_hands(detector, images, name) for name, images in sources.items()}
