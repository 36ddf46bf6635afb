"""What commands share that add something to the rows of an image folder, in files of their own."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from ..errors import DataError
from ..images.metadata import METADATA, file_of_row, read_rows
from ..images.opening import open_image


def new_files(folder: Path, names: Sequence[str], overwrite: bool) -> list[Path]:
    """Where to write in an image folder.

    Raises:
        DataError: no metadata.jsonl, or a file is there already and `overwrite` is not set.
    """
    if not (folder / METADATA).is_file():
        raise DataError(f"{folder} has no {METADATA}")
    targets = [folder / name for name in names]
    for target in targets:
        if target.exists() and not overwrite:
            raise DataError(f"{target} is there already; add --overwrite to replace it")
    return targets


def read_images(folder: Path, title: str, progress: bool) -> Iterator[tuple[dict[str, Any], Path, Image.Image]]:
    """Each row of an image folder with its file's name and its image.

    Raises:
        DataError: a row or an image cannot be read.
    """
    for place, row in tqdm(read_rows(folder / METADATA), title, unit="image", disable=not progress):
        name = file_of_row(row, place)
        try:
            image = open_image(folder / name)
        except DataError as error:
            raise DataError(f"{place}: {name}: {error}") from error
        yield row, name, image
