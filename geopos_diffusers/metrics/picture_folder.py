"""Reads a folder of pictures to be scored: any pictures, and `metadata.jsonl` if there is one."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..images.metadata import METADATA, file_of_row, read_rows
from .hand_attributes import HandAttributes, attributes_of_row

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


@dataclass(frozen=True)
class Picture:
    """A picture's path, its name within the folder, and what is known of it."""

    path: Path
    name: str
    attributes: HandAttributes


@dataclass(frozen=True)
class PictureFolder:
    """The pictures chosen from a folder, how many it holds, and whether `metadata.jsonl` named them."""

    path: Path
    pictures: tuple[Picture, ...]
    available: int
    has_metadata: bool


def list_pictures(folder: str | os.PathLike, limit: int | None = None, seed: int = 0) -> PictureFolder:
    """The pictures that `metadata.jsonl` of `folder` names or, without one, all picture files in it and below it.

    Args:
        limit: at most so many pictures, chosen by `seed`, in their order.

    Raises:
        DataError: no folder, no pictures, a limit below 1, or a line of `metadata.jsonl` that cannot be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give a folder of images")
    if limit is not None and limit < 1:
        raise DataError(f"the largest number of images is {limit}; give 1 or more")
    metadata = folder / METADATA
    has_metadata = metadata.is_file()
    if has_metadata:
        pictures = list(read_metadata(metadata))
    else:
        # Hidden files and folders hold what is being written, or a viewer's thumbnails.
        names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
        names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
        pictures = [Picture(folder / name, name.as_posix(), HandAttributes()) for name in names]
    if not pictures:
        raise DataError(f"{folder} holds no images ({', '.join(sorted(EXTENSIONS))}); give a folder with at least one")
    available = len(pictures)
    if limit is not None and limit < available:
        chosen = np.sort(np.random.default_rng(seed).choice(available, limit, replace=False))
        pictures = [pictures[index] for index in chosen]
    return PictureFolder(folder, tuple(pictures), available, has_metadata)


def read_metadata(path: Path) -> Iterator[Picture]:
    """Yield the pictures named by a `metadata.jsonl`. Raises DataError with the line's number for one that is wrong."""
    for place, row in read_rows(path):
        name = file_of_row(row, place)
        try:
            attributes = attributes_of_row(row)
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
        yield Picture(path.parent / name, name.as_posix(), attributes)
