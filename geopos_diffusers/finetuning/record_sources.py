"""Where rows come from: metadata files, folders of images, Parquet files, data sets of the Hub; read one at a time.

A metadata file costs 8 bytes of memory a row (where its line begins), a table nothing: `datasets` maps it.
"""

import csv
import io
from array import array
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..images.metadata import METADATA, file_of_row, parse_row, place_of_line, scan_rows
from ..optional_packages import optional_import
from .records import (
    Columns,
    Record,
    Records,
    checked_box,
    checked_caption,
    checked_frame,
    keypoints_of_row,
    label_of_row,
    stated_size,
)

ROW_FILES = (".jsonl", ".csv")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


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
            stated_size(row),
            label_of_row(row, columns.label, place),
            folder / file_of_row({"file_name": conditioning}, f"{place}, {columns.conditioning}")
            if conditioning
            else None,
            keypoints_of_row(row, columns.keypoints, place),
            checked_frame(row, columns, place),
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
        wanted = [column for name, column in asdict(columns).items() if name != "box_format" and column]
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
            stated_size(row),
            label_of_row(row, columns.label, place),
            row[columns.conditioning] if columns.conditioning else None,
            keypoints_of_row(row, columns.keypoints, place),
            checked_frame(row, columns, place),
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
