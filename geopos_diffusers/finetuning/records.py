"""The rows of a data set and what they hold, before any image is decoded; see `record_sources` for where they lie."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

from ..boxes import Box
from ..errors import DataError
from .framing import Frame, box_of_row, frame_box, frame_centre, lies_outside, shares_of_row


@dataclass(frozen=True)
class Columns:
    """Which columns of a table, or fields of metadata.jsonl, hold what.

    caption: None where images have none; the caption is empty then, and a folder needs no metadata.jsonl. box: the part
    of each image to show, see `framing.box_of_row`. box_format: xywh (left, top, width, height) or xyxy (left, top,
    right, bottom), in pixels of the upright image. mask, conditioning: an image, or the name of its file in the folder.
    label: the number of a class, from 0. keypoints: 21 [x, y] of a hand, in pixels of the image. frame: the box that
    coordinates are counted from, x0 y0 x1 y1 in shares of the image.
    """

    image: str = "image"
    caption: str | None = "text"
    box: str | None = None
    box_format: str = "xywh"
    mask: str | None = None
    label: str | None = None
    conditioning: str | None = None
    keypoints: str | None = None
    frame: str | None = None


@dataclass(frozen=True)
class Record:
    """A row. image, mask, conditioning: what `open_image` takes.

    size: width and height of the image, where the row states them. framed: the box of its frame, in shares of it.
    """

    image: Any
    caption: str
    name: str
    box: Box | None = None
    mask: Any = None
    size: tuple[int, int] | None = None
    label: int | None = None
    conditioning: Any = None
    keypoints: list[list[float]] | None = None
    framed: Box | None = None

    def frame(self, original: tuple[int, int], size: tuple[int, int], margin: float) -> Frame:
        """What of the image, of `original` width and height, is shown at `size`; see `frame_box`."""
        if self.box is None or lies_outside(original, self.box):
            return frame_centre(original, size)
        return frame_box(original, size, self.box, margin)


class Records(Protocol):
    """A sequence of records whose captions can be read without the rest."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...

    def caption(self, index: int) -> str: ...


class JoinedRecords:
    """Several data sets, one after the other."""

    def __init__(self, parts: Sequence[Records]) -> None:
        self.parts = parts
        self._ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Record:
        part, place = self._place(index)
        return part[place]

    def caption(self, index: int) -> str:
        part, place = self._place(index)
        return part.caption(place)

    def _place(self, index: int) -> tuple[Records, int]:
        number = bisect_right(self._ends, index)
        return self.parts[number], index - (self._ends[number - 1] if number else 0)


class Captions(Sequence[str]):
    """The captions of some of the records, read when they are asked for."""

    def __init__(self, records: Records, kept: Sequence[int]) -> None:
        self._records, self._kept = records, kept

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._records.caption(number) for number in self._kept[index]]
        return self._records.caption(self._kept[index])


def label_of_row(row: dict[str, Any], column: str | None, place: str) -> int | None:
    """The number of a row's class; None where there is no column of classes.

    Raises:
        DataError: it is no whole number from 0 on.
    """
    if column is None:
        return None
    if column not in row:
        raise DataError(f"{place}: no field {column!r}; found {', '.join(map(str, row))}")
    value = row[column]
    if isinstance(value, str) and value.isdecimal():  # of a CSV file
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(f"{place}: {column} must be the number of a class, from 0; found {row[column]!r}")
    return value


def keypoints_of_row(row: dict[str, Any], column: str | None, place: str) -> list[list[float]] | None:
    """The 21 key points of a row's hand; None where there is no column of them.

    Raises:
        DataError: they are something else.
    """
    if column is None:
        return None
    if column not in row:
        raise DataError(f"{place}: no field {column!r}; found {', '.join(map(str, row))}")
    value = row[column]
    try:
        points = [[float(x), float(y)] for x, y in value]
    except (TypeError, ValueError) as error:
        raise DataError(f"{place}: {column} must be 21 [x, y]; found {value!r}"[:200]) from error
    if len(points) != 21 or not all(math.isfinite(number) for point in points for number in point):
        raise DataError(f"{place}: {column} must be 21 finite [x, y]; found {len(points)}")
    return points


def checked_caption(row: dict[str, Any], column: str | None, place: str) -> str:
    """A row's caption, empty without a column of captions. Raises DataError if it is missing or is no text."""
    if column is None:
        return ""
    if column not in row:
        raise DataError(f"{place}: no field {column!r}; found {', '.join(map(str, row))}")
    if not isinstance(row[column], str):
        raise DataError(f"{place}: {column} must be text, found {row[column]!r}")
    return row[column]


def checked_box(row: dict[str, Any], columns: Columns, place: str) -> Box | None:
    """A row's box, see `box_of_row`; None where there is no column of boxes."""
    return box_of_row(row, columns.box, columns.box_format, place) if columns.box else None


def checked_frame(row: dict[str, Any], columns: Columns, place: str) -> Box | None:
    """The box of a row's frame, see `shares_of_row`; None where there is no column of them."""
    return shares_of_row(row, columns.frame, place) if columns.frame else None


def stated_size(row: dict[str, Any]) -> tuple[int, int] | None:
    width, height = row.get("width"), row.get("height")
    if isinstance(width, int) and isinstance(height, int) and min(width, height) > 0:
        return width, height
    return None
