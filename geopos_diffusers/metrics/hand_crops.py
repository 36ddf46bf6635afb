"""Square crops of hands, for whatever looks at one hand alone: the distances of hand crops, a second judge, galleries.

Crops of hands are what HandRefiner (arXiv 2311.17957) and HanDiffuser (arXiv 2403.01693) compute FID and KID of. The
margin had to be chosen; see MARGIN.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..errors import DataError

# Added on each side of the landmarks, as a share of their longer side. Landmarks lie on joints and on each finger's
# last bone, so the skin reaches beyond them. With 0.25 no pixel of 250 rendered hands was outside, and 94% of the arm
# was inside up to 0.4 palm lengths below the wrist; with 0.1 a hand lost up to 4% of its pixels.
MARGIN = 0.25
LARGEST_BOX = 8  # times the image's longer side; what is larger holds no hand of this image


@dataclass(frozen=True)
class HandBox:
    """A square in pixels: its left and upper edge and its side. It may lie partly outside the image."""

    left: float
    top: float
    side: float


def hand_box(landmarks: np.ndarray, margin: float = MARGIN) -> HandBox:
    """The square around one hand's landmarks [N, 2 or 3] in pixels, centred on their bounding box.

    Args:
        margin: added on each side, as a share of the bounding box's longer side; 0 or more.

    Raises:
        DataError: landmarks that are not finite or all in one place, or a margin below 0.
    """
    points = np.asarray(landmarks, dtype=np.float64)[:, :2]
    if not (margin >= 0 and math.isfinite(margin)):
        raise DataError(f"the margin of a hand's box is {margin}; give 0 or more")
    if not np.isfinite(points).all():
        raise DataError("the landmarks of a hand are not finite numbers; a box needs finite ones")
    low, high = points.min(axis=0), points.max(axis=0)
    longer = float((high - low).max())
    if longer == 0:
        raise DataError("the landmarks of a hand are all in one place; a box needs two that differ")
    side = longer * (1 + 2 * margin)
    left, top = (low + high) / 2 - side / 2
    return HandBox(float(left), float(top), side)


def crop_hand(image: Image.Image, box: HandBox, size: int | None = None) -> Image.Image:
    """The square `box` of `image` as RGB, `size` pixels a side; outside the image its edge pixels are repeated.

    Without `size` the box is moved to whole pixels, so that the pixels are those of the image. With it they are
    resampled (bicubic, each new pixel an average of all that it covers).

    Raises:
        DataError: a size below 1, or a box over LARGEST_BOX times as large as the image.
    """
    if size is not None and size < 1:
        raise DataError(f"the side of a crop is {size}; give 1 pixel or more")
    if box.side > LARGEST_BOX * max(image.size):
        raise DataError(f"a hand's box of {box.side:.0f} pixels is too large for an image of {max(image.size)}")
    pixels = np.asarray(image.convert("RGB"))
    if size is None:
        side = max(1, round(box.side))
        return patch(pixels, round(box.left), round(box.top), side, side)
    left, top = math.floor(box.left), math.floor(box.top)
    inner = (box.left - left, box.top - top, box.left - left + box.side, box.top - top + box.side)
    around = patch(pixels, left, top, math.ceil(inner[2]), math.ceil(inner[3]))
    return around.resize((size, size), Image.Resampling.BICUBIC, box=inner)


def patch(pixels: np.ndarray, left: int, top: int, width: int, height: int) -> Image.Image:
    """Whole pixels of an image's [H, W, 3], its edge pixels repeated beyond it."""
    columns = np.clip(np.arange(left, left + width), 0, pixels.shape[1] - 1)
    rows = np.clip(np.arange(top, top + height), 0, pixels.shape[0] - 1)
    return Image.fromarray(pixels.take(rows, axis=0).take(columns, axis=1))
