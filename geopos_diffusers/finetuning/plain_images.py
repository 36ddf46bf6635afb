"""Images without captions from a folder, a Parquet file or a Hub data set."""

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ..errors import DataError
from ..images.metadata import METADATA, file_of_row, read_rows
from ..images.opening import open_image
from ..optional_packages import optional_import
from .image_text_data import TableImages, prepare_image

logger = logging.getLogger(__name__)
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


class PlainImages(Dataset):
    """Item i is {"pixels": [3, S, S] float32 in [-1, 1]}: the shorter side scaled to S, the centre cut out.

    Args:
        sources: of the images, as `open_image` takes them. names: what messages call them. kept: which to use.
        scaled: S. resolution: side of the squares that are cut out of them later.
    """

    def __init__(self, sources: Any, names: Sequence[str], kept: Sequence[int], scaled: int, resolution: int) -> None:
        self.sources, self.names, self.kept, self.scaled, self.resolution = sources, names, kept, scaled, resolution
        self.skipped = len(names) - len(kept)

    def __len__(self) -> int:
        return len(self.kept)

    def fingerprint(self) -> str:
        """A digest of the images' names, within the data set, and of which are used."""
        text = json.dumps([self.scaled, [self.names[index] for index in self.kept]])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        place = self.kept[index]
        try:
            image = open_image(self.sources[place])
        except DataError as error:
            raise DataError(f"{self.names[place]}: {error}") from error
        return {"pixels": prepare_image(image, self.scaled)[0]}


def load_plain_images(
    dataset: str,
    resolution: int,
    scaled: int | None = None,
    image_column: str = "image",
    split: str = "train",
    limit: int | None = None,
    show_progress: bool = True,
) -> PlainImages:
    """Load what `dataset` names: a folder, a Parquet file, or the id of a data set on the Hub.

    Of a folder those images are used that its metadata.jsonl names or, without one, all in it and below it, sorted.
    Every image is decoded once; those that cannot be are left out, with a warning that names them.

    Args:
        resolution, scaled: see `PlainImages`; by default both are the resolution.

    Raises:
        DataError: no such data, a column that does not exist, or no image that can be read.
    """
    path = Path(dataset)
    if path.is_dir():
        names = list_files(path)
        sources: Any = [path / name for name in names]
    elif path.is_file() or (path.suffix != ".parquet" and dataset.count("/") == 1 and dataset[0] not in "./"):
        sources, names = open_table(path if path.is_file() else dataset, image_column, split)
    else:
        raise DataError(f"no image folder or Parquet file {dataset} (a data set of the Hub is given as owner/name)")
    names = names[:limit]
    if not names:
        raise DataError(f"{dataset} holds no images")

    def problem(index: int) -> str | None:
        try:
            open_image(sources[index])
        except (DataError, ValueError, MemoryError) as error:
            return str(error) or type(error).__name__
        return None

    with ThreadPoolExecutor(max_workers=4) as pool:
        checked = pool.map(problem, range(len(names)))
        shown = tqdm(checked, total=len(names), desc="checking images", disable=not show_progress, leave=False)
        problems = {index: reason for index, reason in enumerate(shown) if reason is not None}
    for index, reason in problems.items():
        logger.warning("left out: %s (%s)", names[index], reason)
    if len(problems) == len(names):
        raise DataError(f"{dataset}: none of {len(names)} images can be read; the first: {names[0]} ({problems[0]})")
    kept = [index for index in range(len(names)) if index not in problems]
    return PlainImages(sources, names, kept, scaled or resolution, resolution)


def list_files(folder: Path) -> list[str]:
    """Names of the images of a folder, relative to it. Hidden files hold what is being written: they are left out."""
    if (folder / METADATA).is_file():
        return [file_of_row(row, place).as_posix() for place, row in read_rows(folder / METADATA)]
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))


def open_table(dataset: str | Path, column: str, split: str) -> tuple[TableImages, list[str]]:
    """The image column of a Parquet file or a data set of the Hub, not decoded, and a name for each row."""
    with optional_import("reading data sets", "train"):
        import datasets

    try:
        if isinstance(dataset, Path):
            table = datasets.load_dataset("parquet", data_files=str(dataset), split="train")
        else:
            table = datasets.load_dataset(dataset, split=split)
    except Exception as error:  # datasets raises many kinds, from its own to pyarrow's and the network's
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise DataError(f"{dataset} cannot be loaded: {type(error).__name__}: {reason}") from error
    if column not in table.column_names:
        raise DataError(f"{dataset} has no column {column!r}; found {', '.join(table.column_names)}")
    if isinstance(table.features[column], datasets.Image):
        table = table.cast_column(column, datasets.Image(decode=False))
    return TableImages(table, column), [f"row {number}" for number in range(len(table))]
