"""Images with captions from a folder, a Parquet file or a Hub data set, as tensors that a diffusion model trains on."""

import csv
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ..errors import DataError
from ..images.metadata import METADATA, file_of_row, read_rows
from ..images.opening import open_image
from ..optional_packages import optional_import

logger = logging.getLogger(__name__)


@dataclass
class Records:
    """What a data set holds, before any image is decoded.

    sources: what each image is read from: a path, encoded bytes, a mapping with "bytes" or "path", or an image.
    captions: one text an image. names: what messages call it.
    """

    sources: Sequence[Any]
    captions: list[str]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.captions)


class TableImages:
    """The image column of a data set, read row by row so that a large one stays on disk."""

    def __init__(self, table: Any, column: str) -> None:
        self.table, self.column = table, column

    def __getitem__(self, index: int) -> Any:
        return self.table[index][self.column]


class ImageTextData(Dataset):
    """Pairs of an image and its caption.

    Item i is {"pixels": [3, S, S] float32 in [-1, 1], "caption": str, "sizes": [6] (original height and width, crop top
    and left, S, S; in pixels)}.

    Args:
        records: the whole data set. kept: which of its images to use, in this order.
        resolution: S; the shorter side is scaled to it (bicubic, antialiased) and the centre is cut out.
    """

    def __init__(self, records: Records, kept: Sequence[int], resolution: int) -> None:
        self.sources, self.kept, self.resolution = records.sources, kept, resolution
        self.captions = [records.captions[index] for index in kept]
        self.skipped = len(records) - len(kept)

    def __len__(self) -> int:
        return len(self.captions)

    def fingerprint(self) -> str:
        """A digest of the captions and of which images are used: equal for the same data, wherever it lies."""
        text = json.dumps([self.resolution, list(self.kept), self.captions])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __getitem__(self, index: int) -> dict[str, Any]:
        pixels, sizes = prepare_image(open_image(self.sources[self.kept[index]]), self.resolution)
        return {"pixels": pixels, "caption": self.captions[index], "sizes": sizes}


def load_image_text(
    dataset: str,
    resolution: int,
    image_column: str = "image",
    caption_column: str = "text",
    split: str = "train",
    limit: int | None = None,
    show_progress: bool = True,
) -> ImageTextData:
    """Load the data set that `dataset` names: an image folder, a Parquet file, or the id of a data set on the Hub.

    Every image is decoded once; those that cannot be are left out, with a warning that names them.

    Raises:
        DataError: no such data, no captions, a column that does not exist, or no image that can be read.
    """
    path = Path(dataset)
    if path.is_dir():
        records = read_image_folder(path, caption_column)
    elif path.is_file():
        records = read_table(path, image_column, caption_column, split)
    elif path.suffix == ".parquet" or path.is_absolute() or dataset.startswith(".") or dataset.count("/") != 1:
        raise DataError(f"no image folder or Parquet file {dataset} (a data set of the Hub is given as owner/name)")
    else:
        records = read_table(dataset, image_column, caption_column, split)
    if limit is not None:
        records = Records(records.sources, records.captions[:limit], records.names)
    if not len(records):
        raise DataError(f"{dataset} holds no images with captions")
    problems = find_unreadable(records, resolution, show_progress)
    for index, reason in problems.items():
        logger.warning("left out: %s (%s)", records.names[index], reason)
    if len(problems) == len(records):
        raise DataError(
            f"{dataset}: none of {len(problems)} images can be read; the first: {records.names[0]} ({problems[0]})"
        )
    if problems:
        logger.warning("%d of %d images cannot be read and are left out", len(problems), len(records))
    return ImageTextData(records, [index for index in range(len(records)) if index not in problems], resolution)


def read_image_folder(folder: Path, caption_column: str) -> Records:
    """Read metadata.jsonl (or metadata.csv) in `folder`: file_name and a caption for each image.

    Raises:
        DataError: neither file exists, a line is damaged, a field is missing, or a file lies outside the folder.
    """
    jsonl, table = folder / METADATA, folder / "metadata.csv"
    if not jsonl.is_file() and not table.is_file():
        raise DataError(f"{folder} has no {METADATA} (one JSON object a line with file_name and {caption_column})")
    paths, captions = [], []
    for place, row in read_rows(jsonl) if jsonl.is_file() else _read_csv(table):
        paths.append(folder / file_of_row(row, place))
        if caption_column not in row:
            raise DataError(f"{place}: no field {caption_column!r}; found {', '.join(map(str, row))}")
        if not isinstance(row[caption_column], str):
            raise DataError(f"{place}: {caption_column} must be text, found {row[caption_column]!r}")
        captions.append(row[caption_column])
    return Records(paths, captions, [str(path) for path in paths])


def _read_csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                yield f"{path}, line {number}", row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def read_table(dataset: str | Path, image_column: str, caption_column: str, split: str) -> Records:
    """Open a Parquet file, or a data set of the Hub, without decoding its images.

    Raises:
        DataError: it cannot be opened, or a column is missing or holds something else.
    """
    with optional_import("reading data sets", "train"):
        import datasets

    try:
        if isinstance(dataset, Path):
            table = datasets.load_dataset("parquet", data_files=str(dataset), split="train")
        else:
            table = datasets.load_dataset(dataset, split=split)
    except Exception as error:  # datasets raises many kinds, from its own to pyarrow's and the network's
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        place = "" if isinstance(dataset, Path) else "is no folder or file here, and as a data set of the Hub it "
        raise DataError(f"{dataset} {place}cannot be loaded: {type(error).__name__}: {reason}") from error
    for column in (image_column, caption_column):
        if column not in table.column_names:
            raise DataError(f"{dataset} has no column {column!r}; found {', '.join(table.column_names)}")
    if isinstance(table.features[image_column], datasets.Image):
        table = table.cast_column(image_column, datasets.Image(decode=False))
    captions = list(table[caption_column])
    for number, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise DataError(f"{dataset}, row {number}: {caption_column} must be text, found {caption!r}")
    names = [f"{dataset}, row {number}" for number in range(len(captions))]
    return Records(cast(Sequence[Any], TableImages(table, image_column)), captions, names)


def find_unreadable(records: Records, resolution: int, show_progress: bool = True) -> dict[int, str]:
    """Decode and scale every image once. Returns the index and the reason of each that cannot be."""

    def problem(index: int) -> str | None:
        try:
            prepare_image(open_image(records.sources[index]), resolution)
        except (DataError, ValueError, MemoryError) as error:
            return str(error) or type(error).__name__
        return None

    with ThreadPoolExecutor(max_workers=4) as pool:
        reasons = pool.map(problem, range(len(records)))
        shown = tqdm(reasons, total=len(records), desc="checking images", disable=not show_progress, leave=False)
        return {index: reason for index, reason in enumerate(shown) if reason is not None}


def prepare_image(image: Image.Image, resolution: int) -> tuple[Tensor, Tensor]:
    """Scale the shorter side to `resolution` and cut out the centre.

    Returns:
        [3, S, S] float32 in [-1, 1], and [6] float32: original height and width, crop top and left, S, S.
    """
    width, height = image.size
    scale = resolution / min(width, height)
    scaled = (max(resolution, round(width * scale)), max(resolution, round(height * scale)))
    left, top = (scaled[0] - resolution) // 2, (scaled[1] - resolution) // 2
    if scaled == image.size:
        image = image.crop((left, top, left + resolution, top + resolution))
    else:
        # Of the part that is kept alone: a long and narrow image scaled as a whole could fill the memory.
        x, y = width / scaled[0], height / scaled[1]
        box = (left * x, top * y, min((left + resolution) * x, width), min((top + resolution) * y, height))
        image = image.resize((resolution, resolution), Image.Resampling.BICUBIC, box)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 127.5 - 1
    return pixels, torch.tensor([height, width, top, left, resolution, resolution], dtype=torch.float32)
