"""Which part of an image a training sees, and at which size: the centre, or what surrounds a box."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..boxes import Box, check_box
from ..errors import ConfigError, DataError


@dataclass(frozen=True)
class Frame:
    """A rectangle of an image and the size that it is scaled to.

    size: height and width of the result. scaled: width and height of the whole image at the result's scale. left, top:
    of the rectangle, in pixels of the scaled image. box: left, top, right, bottom in pixels of the image itself.
    """

    original: tuple[int, int]
    size: tuple[int, int]
    scaled: tuple[int, int]
    left: int
    top: int
    box: Box

    @property
    def numbers(self) -> Tensor:
        """[6] float32: original height and width, crop top and left, height and width; SDXL's time ids."""
        width, height = self.original
        return torch.tensor([height, width, self.top, self.left, *self.size], dtype=torch.float32)


def frame_centre(original: tuple[int, int], size: tuple[int, int]) -> Frame:
    """The largest rectangle of the right shape in the middle of an image of `original` width and height."""
    (width, height), (rows, columns) = original, size
    scale = max(columns / width, rows / height)
    scaled = (max(columns, round(width * scale)), max(rows, round(height * scale)))
    left, top = (scaled[0] - columns) // 2, (scaled[1] - rows) // 2
    x, y = width / scaled[0], height / scaled[1]
    box = (left * x, top * y, min((left + columns) * x, width), min((top + rows) * y, height))
    return Frame(original, size, scaled, left, top, box)


def frame_box(original: tuple[int, int], size: tuple[int, int], box: Box, margin: float) -> Frame:
    """The rectangle of the right shape around a box, moved and, if it must be, shrunk to lie within the image.

    Args:
        box: left, top, right, bottom in pixels; what lies outside the image does not count.
        margin: space on every side of the box, as a share of its longer side.
    """
    (width, height), (rows, columns) = original, size
    wide, high = grown_box(original, box, margin)
    wide = min(max(wide, high * columns / rows), width, height * columns / rows)
    high = wide * rows / columns
    middle_x = (max(box[0], 0.0) + min(box[2], width)) / 2
    middle_y = (max(box[1], 0.0) + min(box[3], height)) / 2
    left = min(max(middle_x - wide / 2, 0.0), width - wide)
    top = min(max(middle_y - high / 2, 0.0), height - high)
    scale = columns / wide
    scaled = (max(columns, round(width * scale)), max(rows, round(height * scale)))
    rectangle = (left, top, min(left + wide, width), min(top + high, height))
    return Frame(original, size, scaled, round(left * scale), round(top * scale), rectangle)


def grown_box(original: tuple[int, int], box: Box, margin: float) -> tuple[float, float]:
    """Width and height of a box within an image, with its margin."""
    wide = min(box[2], original[0]) - max(box[0], 0.0)
    high = min(box[3], original[1]) - max(box[1], 0.0)
    space = 2 * margin * max(wide, high)
    return wide + space, high + space


def box_in_crop(frame: Frame, box: Box | None) -> Tensor:
    """Where a box of the image lies in what is cut out of it: [4] float32 left, top, right, bottom, in shares of that.

    It may reach outside; four NaN where there is no box, or nothing of it is left.

    Args:
        box: left, top, right, bottom in shares of the image.

    Example:
        >>> box_in_crop(frame_centre((200, 100), (50, 50)), (0.5, 0.0, 1.0, 0.5)).tolist()
        [0.5, 0.0, 1.5, 0.5]
    """
    if box is None:
        return torch.full((4,), math.nan)
    (width, height), (rows, columns) = frame.scaled, frame.size
    left, right = ((share * width - frame.left) / columns for share in box[::2])
    top, bottom = ((share * height - frame.top) / rows for share in box[1::2])
    found = torch.tensor([left, top, right, bottom])
    seen = found.clamp(0, 1)
    return found if (seen[2:] > seen[:2]).all() else torch.full((4,), math.nan)


def cut_out(image: Image.Image, frame: Frame, resampling: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    """The frame's part of an image, at the frame's size."""
    rows, columns = frame.size
    if frame.scaled == image.size:
        return image.crop((frame.left, frame.top, frame.left + columns, frame.top + rows))
    # Of the part that is kept alone: a long and narrow image scaled as a whole could fill the memory.
    return image.resize((columns, rows), resampling, frame.box)


def image_tensor(image: Image.Image) -> Tensor:
    """[3, H, W] float32 in [-1, 1] of an RGB image."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 127.5 - 1


def prepare_image(image: Image.Image, size: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Scale an image so that it just covers `size` (a side, or height and width) and cut out the centre.

    Returns:
        [3, H, W] float32 in [-1, 1], and the six numbers of `Frame`.
    """
    frame = frame_centre(image.size, (size, size) if isinstance(size, int) else size)
    return image_tensor(cut_out(image, frame)), frame.numbers


def box_of_row(row: Mapping[str, Any], column: str, box_format: str, place: str) -> Box | None:
    """Left, top, right and bottom of a row's box; None where it has none.

    Args:
        box_format: xywh (left, top, width, height) or xyxy (left, top, right, bottom).

    Raises:
        DataError: it is not four finite numbers, or is empty, or lies within one pixel, as shares of the image do.
    """
    if (numbers := _four_numbers(row, column, place)) is None:
        return None
    left, top, third, fourth = numbers
    right, bottom = (left + third, top + fourth) if box_format == "xywh" else (third, fourth)
    if not all(map(math.isfinite, (left, top, right, bottom))) or right <= left or bottom <= top:
        raise DataError(f"{place}: {column} is an empty box as {box_format}: {row[column]!r}")
    if min(left, top) >= 0 and max(right, bottom) <= 1:
        raise DataError(f"{place}: {column} must be in pixels; {row[column]!r} seems to be in shares of the image")
    return left, top, right, bottom


def shares_of_row(row: Mapping[str, Any], column: str, place: str) -> Box | None:
    """Left, top, right and bottom of a row's box in shares of the image; None where it has none.

    Raises:
        DataError: it is not four numbers from 0 to 1, or is empty or reversed.
    """
    if (numbers := _four_numbers(row, column, place)) is None:
        return None
    if max(numbers) > 1:
        raise DataError(
            f"{place}: {column} must be x0 y0 x1 y1 in shares of the image, from 0 to 1; {row[column]!r} seems to be "
            "in pixels"
        )
    try:
        return check_box(numbers, column)
    except ConfigError as error:
        raise DataError(f"{place}: {error}") from error


def _four_numbers(row: Mapping[str, Any], column: str, place: str) -> Box | None:
    values = row.get(column)
    if values is None or (isinstance(values, (list, tuple, str)) and not len(values)):
        return None
    if isinstance(values, str):  # of a CSV file
        values = values.strip("[]() ").replace(",", " ").split()
    try:
        first, second, third, fourth = (float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise DataError(f"{place}: {column} must be four numbers, found {row[column]!r}"[:300]) from error
    return first, second, third, fourth


def lies_outside(original: tuple[int, int], box: Box) -> bool:
    """Whether no part of a box is within an image."""
    return min(grown_box(original, box, 0.0)) <= 0
