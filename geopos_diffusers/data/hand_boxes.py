"""Boxes of the hands of an image folder: the frames that a training can count coordinates in."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..errors import DataError
from ..files import atomic_path
from ..images.box_drawing import draw_boxes
from ..images.contact_sheet import contact_sheet
from ..images.hand_boxes import box_of_hand
from .annotating import new_files, read_images
from .hand_masks import FindHands

BOXED_METADATA, PREVIEW = "metadata_boxes.jsonl", "boxes_preview.png"
PREVIEWED = 24  # images


@dataclass(frozen=True)
class BoxCounts:
    """How many images a folder has, and of how many of them one hand and several hands got boxes."""

    images: int
    one: int
    several: int


def write_boxes(
    folder: str | os.PathLike,
    find_hands: FindHands,
    margin: float,
    overwrite: bool = False,
    progress: bool = True,
) -> BoxCounts:
    """Write metadata_boxes.jsonl and boxes_preview.png into an image folder.

    A row of an image with one hand gets its "box", one with several hands their "boxes" from left to right, and one
    without hands neither; boxes that rows had are left out. metadata.jsonl stays as it is.

    Raises:
        DataError: no metadata.jsonl, an image that cannot be read, no hands at all, or the files are there and
            `overwrite` is not set.
    """
    folder = Path(folder)
    targets = new_files(folder, (BOXED_METADATA, PREVIEW), overwrite)
    previews: list[tuple[Image.Image, str]] = []
    counts = {0: 0, 1: 0, 2: 0}
    with atomic_path(targets[0]) as metadata, metadata.open("w", encoding="utf-8") as file:
        for row, name, image in read_images(folder, "boxes", progress):
            found = (box_of_hand(points, image.size, margin) for points in find_hands(row, image))
            boxes = sorted(box for box in found if box is not None)
            row = {key: value for key, value in row.items() if key not in ("box", "boxes")}
            if boxes:
                row |= {"box": list(boxes[0])} if len(boxes) == 1 else {"boxes": [list(box) for box in boxes]}
            counts[min(len(boxes), 2)] += 1
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            if len(previews) < PREVIEWED:
                previews.append((draw_boxes(image, boxes), str(name) if boxes else f"{name}: no hand"))
        if not counts[1] + counts[2]:
            raise DataError(f"{folder}: no hands were found in {counts[0]} images")
    with atomic_path(targets[1]) as temporary:
        contact_sheet([image for image, _ in previews], [name for _, name in previews]).save(temporary, format="PNG")
    return BoxCounts(sum(counts.values()), counts[1], counts[2])
