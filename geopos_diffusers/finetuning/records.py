"""What a data set holds, before any image is decoded: rows that stay on the disk and are read one at a time.

An image folder costs 8 bytes of memory a row (where its line begins), a table nothing: `datasets` maps it.
"""

import csv
import io
import math
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from ..errors import DataError
from ..images.metadata import METADATA, file_of_row, parse_row, place_of_line, scan_rows
from ..optional_packages import optional_import
from .framing import Box, Frame, box_of_row, frame_box, frame_centre, lies_outside

ROW_FILES = (".jsonl", ".csv")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Columns:
    """Which columns of a table, or fields of metadata.jsonl, hold what.

    caption: None where images have none; the caption is empty then, and a folder needs no metadata.jsonl. box: the part
    of each image to show, see `framing.box_of_row`. box_format: xywh (left, top, width, height) or xyxy (left, top,
    right, bottom), in pixels of the upright image. mask, conditioning: an image, or the name of its file in the folder.
    label: the number of a class, from 0. keypoints: 21 [x, y] of a hand, in pixels of the image.
    """

    image: str = "image"
    caption: str | None = "text"
    box: str | None = None
    box_format: str = "xywh"
    mask: str | None = None
    label: str | None = None
    conditioning: str | None = None
    keypoints: str | None = None


@dataclass(frozen=True)
class Record:
    """A row. image, mask, conditioning: what `open_image` takes.

    size: width and height of the image, where the row states them.
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


class FolderRecords:
    """The rows of a metadata.jsonl or .csv, whose files lie beside it. All rows are checked once, and none is kept.

    Raises:
        DataError: a line is damaged, a field is missing or of another kind, or a file lies outside the folder.
    """

    def __init__(self, file: Path, columns: Columns, limit: int | None = None) -> None:
        self.file, self.columns = file, columns
        self._header: list[str] | None = None
        self._offsets = array("q")
        for offset, place, row in scan_rows(file) if file.suffix == ".jsonl" else self._scan_csv():
            if len(self._offsets) == limit:
                break
            self._record(row, place)
            self._offsets.append(offset)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Record:
        return self._record(self._row(index), f"{self.file}, row {index}")

    def caption(self, index: int) -> str:
        return self._row(index)[self.columns.caption] if self.columns.caption else ""

    def _record(self, row: dict[str, Any], place: str) -> Record:
        columns, folder = self.columns, self.file.parent
        path = folder / file_of_row(row, place)
        caption = checked_caption(row, columns.caption, place)
        mask = row.get(columns.mask) if columns.mask else None
        conditioning = row.get(columns.conditioning) if columns.conditioning else None
        if columns.conditioning and not conditioning:
            raise DataError(f"{place}: no field {columns.conditioning!r}; found {', '.join(map(str, row))}")
        return Record(
            path,
            caption,
            str(path),
            checked_box(row, columns, place),
            folder / file_of_row({"file_name": mask}, f"{place}, {columns.mask}") if mask else None,
            _stated_size(row),
            label_of_row(row, columns.label, place),
            folder / file_of_row({"file_name": conditioning}, f"{place}, {columns.conditioning}")
            if conditioning
            else None,
            keypoints_of_row(row, columns.keypoints, place),
        )

    def _row(self, index: int) -> dict[str, Any]:
        with self.file.open("rb") as file:
            file.seek(self._offsets[index])
            if self._header is None:
                return parse_row(file.readline(), self.file, index)
            with io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
                return next(csv.DictReader(text, self._header))

    def _scan_csv(self) -> Iterator[tuple[int, str, dict[str, Any]]]:
        end = 0

        def lines(file: Any) -> Iterator[str]:
            nonlocal end
            for line in file:
                end += len(line)
                yield line.decode("utf-8-sig")

        try:
            with self.file.open("rb") as file:
                reader = csv.DictReader(lines(file))
                self._header = [*(reader.fieldnames or [])]
                begin = end
                for number, row in enumerate(reader, start=2):
                    yield begin, place_of_line(self.file, number), row
                    begin = end
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{self.file} cannot be read: {error}") from error


class TableRecords:
    """The rows of a data set of `datasets`, whose images and captions stay in its memory-mapped file.

    Raises:
        DataError: a column is missing or holds something else.
    """

    def __init__(self, table: Any, name: str, columns: Columns, limit: int | None = None) -> None:
        import datasets

        self.name, self.columns = name, columns
        optional = (columns.caption, columns.box, columns.mask, columns.label, columns.conditioning, columns.keypoints)
        wanted = [columns.image, *(column for column in optional if column)]
        for column in wanted:
            if column not in table.column_names:
                raise DataError(f"{name} has no column {column!r}; found {', '.join(table.column_names)}")
        if limit is not None and limit < len(table):
            table = table.select(range(limit))
        sizes = [column for column in ("width", "height") if column in table.column_names]
        table = table.select_columns(list(dict.fromkeys([*wanted, *sizes])))
        for column in wanted:
            if isinstance(table.features[column], datasets.Image):
                table = table.cast_column(column, datasets.Image(decode=False))
        self._table, self._captions = table, table
        if columns.caption:
            self._captions = table.select_columns([columns.caption])
            self._check_captions(columns.caption)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Record:
        row, columns, place = self._table[index], self.columns, f"{self.name}, row {index}"
        return Record(
            row[columns.image],
            checked_caption(row, columns.caption, place),
            place,
            checked_box(row, columns, place),
            row[columns.mask] if columns.mask else None,
            _stated_size(row),
            label_of_row(row, columns.label, place),
            row[columns.conditioning] if columns.conditioning else None,
            keypoints_of_row(row, columns.keypoints, place),
        )

    def caption(self, index: int) -> str:
        return self._captions[index][self.columns.caption] if self.columns.caption else ""

    def _check_captions(self, column: str) -> None:
        for start in range(0, len(self), 1000):
            for number, caption in enumerate(self._captions[start : start + 1000][column], start):
                if not isinstance(caption, str):
                    raise DataError(f"{self.name}, row {number}: {column} must be text, found {caption!r}")


class FileRecords:
    """The image files of a folder without metadata, in the order of their paths; for images without captions."""

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
        self._folder, self._names = folder, sorted(str(path.relative_to(folder)) for path in found)[:limit]

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Record:
        path = self._folder / self._names[index]
        return Record(path, "", str(path))

    def caption(self, index: int) -> str:
        return ""


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


def open_records(dataset: str, columns: Columns, split: str = "train", limit: int | None = None) -> Records:
    """The rows of an image folder, a metadata file, Parquet files (one, or all of a folder), or a data set of the Hub.

    Raises:
        DataError: no such data, or they do not hold what `columns` says.
    """
    path = Path(dataset)
    if path.is_dir():
        for name in (METADATA, "metadata.csv"):
            if (path / name).is_file():
                return FolderRecords(path / name, columns, limit)
        if not (files := sorted(map(str, path.rglob("*.parquet")))):
            if columns.caption or columns.label or columns.conditioning:
                needed = ", ".join(name for name in (columns.caption, columns.label, columns.conditioning) if name)
                raise DataError(f"{path} has no {METADATA} (one JSON object a line with file_name and {needed})")
            return FileRecords(path, limit)
        return TableRecords(_load_table(dataset, files), dataset, columns, limit)
    if path.is_file() and path.suffix in ROW_FILES:
        return FolderRecords(path, columns, limit)
    if path.is_file():
        return TableRecords(_load_table(dataset, [dataset]), dataset, columns, limit)
    if path.suffix in (".parquet", *ROW_FILES) or path.is_absolute() or dataset[:1] == "." or dataset.count("/") != 1:
        raise DataError(f"no image folder or Parquet file {dataset} (a data set of the Hub is given as owner/name)")
    return TableRecords(_load_table(dataset, None, split), dataset, columns, limit)


def _load_table(dataset: str, files: list[str] | None, split: str = "train") -> Any:
    with optional_import("reading data sets", "train"):
        import datasets

    try:
        if files is not None:
            return datasets.load_dataset("parquet", data_files=files, split="train")
        return datasets.load_dataset(dataset, split=split)
    except Exception as error:  # datasets raises many kinds, from its own to pyarrow's and the network's
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        place = "" if files is not None else "is no folder or file here, and as a data set of the Hub it "
        raise DataError(f"{dataset} {place}cannot be loaded: {type(error).__name__}: {reason}") from error


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


def _stated_size(row: dict[str, Any]) -> tuple[int, int] | None:
    width, height = row.get("width"), row.get("height")
    if isinstance(width, int) and isinstance(height, int) and min(width, height) > 0:
        return width, height
    return None
