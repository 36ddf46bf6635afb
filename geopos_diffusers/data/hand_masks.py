"""Masks of hands from their key points: where a training's loss is to count most."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw

from ..errors import DataError
from ..files import atomic_directory, atomic_path
from ..images.contact_sheet import contact_sheet
from .annotating import new_files, read_images

MASKED_METADATA = "metadata_masked.jsonl"
MASKS, PREVIEW = "masks", "masks_preview.png"
PREVIEWED = 12  # images
# MediaPipe's order: the wrist, then four points of each finger from its root, thumb first.
FINGERS = [[0, *range(first, first + 4)] for first in range(1, 21, 4)]
PALM = [0, 1, 5, 9, 13, 17]
KNUCKLES = PALM[2:]
Shape = Literal["skeleton", "hull"]
# Key points [21, 2] of each hand of an image, in pixels, from its row and the image.
FindHands = Callable[[dict[str, Any], Image.Image], Sequence[np.ndarray]]


@dataclass(frozen=True)
class MaskCounts:
    """How many images a folder has, and how many of them got a mask."""

    images: int
    masked: int


def draw_mask(
    hands: Sequence[np.ndarray], size: tuple[int, int], dilation: float = 0.3, shape: Shape = "skeleton"
) -> Image.Image:
    """White hands on black, mode L.

    Args:
        hands: key points [21, 2] of each, in pixels. size: width and height.
        dilation: how far a mask reaches beyond the bones, as a share of the distance from the wrist to the knuckles.
        shape: the palm and the fingers, or the convex hull of all points.
    """
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    for points in hands:
        palm = np.linalg.norm(points[KNUCKLES] - points[0], axis=1).max()
        radius = max(0.5, dilation * palm)
        outline = points[PALM] if shape == "skeleton" else convex_hull(points)
        draw.polygon([tuple(point) for point in outline], fill=255)
        lines = [points[finger] for finger in FINGERS] if shape == "skeleton" else []
        for line in (*lines, np.concatenate([outline, outline[:1]])):
            draw.line([tuple(point) for point in line], fill=255, width=max(1, round(2 * radius)))
            for x, y in line:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return mask


def convex_hull(points: np.ndarray) -> np.ndarray:
    """The corners [n, 2] of the convex hull of points [N, 2], in their order (Andrew's monotone chain)."""
    ordered = sorted(map(tuple, points.tolist()))
    halves = []
    for side in (ordered, ordered[::-1]):
        half: list[tuple[float, float]] = []
        for x, y in side:
            while len(half) > 1 and _turn(half[-2], half[-1], (x, y)) <= 0:
                half.pop()
            half.append((x, y))
        halves += half[:-1]
    return np.array(halves or ordered[:1])


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def hands_of_row(row: dict[str, Any], image: Image.Image) -> list[np.ndarray]:
    """The key points that a row of rendered hands holds: one hand's [21, 2], or several; none where there are none.

    Several are a list of them, or lie in each of the row's "hands".

    Raises:
        DataError: they are something else.
    """
    given, several = row.get("keypoints"), row.get("hands")
    if not given and isinstance(several, list):
        given = [hand.get("keypoints") for hand in several if isinstance(hand, dict)]
    if not given:
        return []
    try:
        points = np.array(given, dtype=float)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.ndim == 2:
        points = points[None]
    if points.ndim != 3 or points.shape[1:] != (21, 2) or not np.isfinite(points).all():
        raise DataError(f"{row.get('file_name')}: keypoints must be 21 pairs of numbers, or several such lists")
    return list(points)


def write_masks(
    folder: str | os.PathLike,
    find_hands: FindHands,
    dilation: float = 0.3,
    shape: Shape = "skeleton",
    overwrite: bool = False,
    progress: bool = True,
) -> MaskCounts:
    """Write masks/, metadata_masked.jsonl (the rows with a field "mask") and masks_preview.png into an image folder.

    metadata.jsonl stays as it is. A row of an image without hands gets no mask.

    Raises:
        DataError: no metadata.jsonl, an image that cannot be read, or masks are there and `overwrite` is not set.
    """
    folder = Path(folder)
    targets = new_files(folder, (MASKS, MASKED_METADATA, PREVIEW), overwrite)
    previews: list[Image.Image] = []
    count = masked = 0
    with (
        atomic_directory(targets[0]) as made,
        atomic_path(targets[1]) as metadata,
        metadata.open("w", encoding="utf-8") as file,
    ):
        for row, name, image in read_images(folder, "masks", progress):
            if len(hands := find_hands(row, image)):
                mask = draw_mask(hands, image.size, dilation, shape)
                drawn = name.with_name(f"{name.name}.png")
                (made / drawn).parent.mkdir(parents=True, exist_ok=True)
                mask.save(made / drawn)
                row["mask"] = (Path(MASKS) / drawn).as_posix()
                masked += 1
                if len(previews) < PREVIEWED:
                    previews.append(dimmed_outside(image, mask))
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
        if not masked:
            raise DataError(f"{folder}: no hands were found in {count} images")
    with atomic_path(targets[2]) as temporary:
        contact_sheet(previews).save(temporary, format="PNG")
    return MaskCounts(count, masked)


def dimmed_outside(image: Image.Image, mask: Image.Image) -> Image.Image:
    """An image that is dark where its mask is black."""
    return Image.composite(image, Image.blend(image, Image.new("RGB", image.size), 0.7), mask)
