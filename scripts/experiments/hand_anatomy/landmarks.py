"""Landmarks that MediaPipe finds in photographs, rendered hands and rendered hands with defects."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from geopos_diffusers.data.hands import render_hands
from geopos_diffusers.files import atomic_path
from geopos_diffusers.metrics.hand_detection import HandDetector

from ..photographs import read_photographs

# How the rendered sets are drawn: the ways people count, seen from the palm or the back; and everything.
PLAIN = {"poses": "canonical", "views": ("palm", "back"), "max_tilt": 20.0, "max_rotation": 60.0}
VARIED = {"max_rotation": 60.0}
SIZE = 128
NO_DEFECT = "none"
Sample = tuple[Image.Image, str, int]  # an image, its defect and the number of raised fingers


@dataclass(frozen=True)
class FoundHands:
    """What was found in `images` images, in N of them a hand.

    world, image: landmarks [N, 21, 3]. defects [N]: names. fingers [N]: how many are raised, -1 where it is not known.
    """

    world: np.ndarray
    image: np.ndarray
    defects: np.ndarray
    fingers: np.ndarray
    images: int

    def select(self, chosen: np.ndarray) -> "FoundHands":
        arrays = (self.world, self.image, self.defects, self.fingers)
        return FoundHands(*(array[chosen] for array in arrays), int(chosen.sum()))


def find_hands(detector: HandDetector, images: Iterable[Sample], name: str) -> FoundHands:
    """The most prominent hand of each image."""
    world, points, defects, raised, count = [], [], [], [], 0
    for image, defect, fingers in tqdm(images, desc=name, unit="image"):
        count += 1
        if hands := detector.detect(image):
            world.append(hands[0].world_landmarks)
            points.append(hands[0].landmarks)
            defects.append(defect)
            raised.append(fingers)
    return FoundHands(np.array(world), np.array(points), np.array(defects), np.array(raised), count)


def photographs(path: Path) -> Iterable[Sample]:
    """The pictures of a Parquet file with the column `image`."""
    for row in read_photographs(path, ("image",)):
        yield row["image"], NO_DEFECT, -1


def rendered(count: int, seed: int, options: dict) -> Iterable[Sample]:
    for image, attributes in render_hands(count, SIZE, seed, **options):
        yield image, attributes.get("defect") or NO_DEFECT, attributes["fingers"]


def collect(folder: Path, count: int, seed: int, kept: Path) -> dict[str, FoundHands]:
    """All sets by name. Training sets are for choosing, the others for measuring; no subject or seed is in both.

    Finding them takes long: each is written to the folder `kept`, and read from there the next time.
    """
    sources = {
        "photographs, training": photographs(folder / "train.parquet"),
        "photographs, test": photographs(folder / "test.parquet"),
        "rendered, training": rendered(count, seed, PLAIN),
        "rendered, test": rendered(count, seed + 1, PLAIN),
        "rendered in all poses, training": rendered(count, seed + 2, VARIED),
        "rendered in all poses, test": rendered(count, seed + 3, VARIED),
        "rendered with defects": rendered(2 * count, seed + 4, PLAIN | {"defects": 1.0}),
    }
    sets = {}
    for name, images in sources.items():
        path = kept / f"{name}, {count}, {seed}.npz"
        if not path.is_file():
            with HandDetector(max_hands=1) as detector:
                found = find_hands(detector, images, name)
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, **vars(found))
        sets[name] = read_hands_file(path)
    return sets


def read_hands_file(path: Path) -> FoundHands:
    with np.load(path, allow_pickle=False) as arrays:
        columns = (arrays[name] for name in ("world", "image", "defects", "fingers"))
        return FoundHands(*columns, int(arrays["images"]))
