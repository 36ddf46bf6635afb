"""Rendered hands at all places, whose captions do not say where; the same captions with a place in words."""

import json
from pathlib import Path

from PIL import Image

from geopos_diffusers.boxes import Box
from geopos_diffusers.files import write_text
from geopos_diffusers.images.metadata import METADATA

from ..rendered_hands import KNOWN_POSES, render

SIZE = 64
HANDS = (*KNOWN_POSES, "--placement", "anywhere", "--scale", "0.35", "0.8")
MEAN_BOX = (0.336, 0.228, 0.669, 0.772)  # of the training images
PLACED_TEXT = "placed_text"  # field of the captions with a place
ROWS, COLUMNS = ("top", "", "bottom"), ("left", "", "right")


def place_words(box: Box) -> str:
    """Which of nine parts of the image the middle of a box lies in: "top left", "left", "center".

    Example:
        >>> place_words((0.0, 0.0, 0.4, 0.5)), place_words((0.3, 0.3, 0.7, 0.8))
        ('top left', 'center')
    """
    x, y = ((box[axis] + box[axis + 2]) / 2 for axis in (0, 1))
    return f"{ROWS[min(int(3 * y), 2)]} {COLUMNS[min(int(3 * x), 2)]}".strip() or "center"


def render_placed(folder: Path, count: int, seed: int) -> Path:
    """Write an image folder, or go on with one that is there."""
    render(folder, count, SIZE, seed, [*HANDS, "--quiet"])
    rows = read_rows(folder)
    if any(PLACED_TEXT not in row for row in rows):
        # Before the caption: the end of a long one may be cut off.
        placed = [row | {PLACED_TEXT: f"{place_words(row['box'])}, {row['text']}"} for row in rows]
        write_text(folder / METADATA, "".join(json.dumps(row) + "\n" for row in placed))
    return folder


def render_test(work: Path, count: int) -> Path:
    """The test images in the experiment's folder: 500, or `count` if that is more."""
    return render_placed(work / "data" / "test", max(count, 500), 3)


def read_images(folder: Path, count: int) -> list[Image.Image]:
    """The images of the first rows."""
    return [Image.open(folder / row["file_name"]).convert("RGB") for row in read_rows(folder)[:count]]


def read_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / METADATA).read_text(encoding="utf-8").splitlines()]
