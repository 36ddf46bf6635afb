"""Reads a folder of images to be scored: any images, and `metadata.jsonl` if there is one."""

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
class FolderImage:
    """An image's path, its name within the folder, and what is known of it."""

    path: Path
    name: str
    attributes: HandAttributes
    text: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class ImageFolder:
    """The images chosen from a folder, how many it holds, and whether `metadata.jsonl` named them."""

    path: Path
    entries: tuple[FolderImage, ...]
    available: int
    has_metadata: bool


def list_images(folder: str | os.PathLike, limit: int | None = None, seed: int = 0) -> ImageFolder:
    """The images that `metadata.jsonl` of `folder` names or, without one, all image files in it and below it.

    Args:
        limit: at most so many images, chosen by `seed`, in their order.

    Raises:
        DataError: no folder, no images, a limit below 1, or a line of `metadata.jsonl` that cannot be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give a folder of images")
    if limit is not None and limit < 1:
        raise DataError(f"the largest number of images is {limit}; give 1 or more")
    metadata = folder / METADATA
    has_metadata = metadata.is_file()
    if has_metadata:
        found = list(read_metadata(metadata))
    else:
        # Hidden files and folders hold what is being written, or a viewer's thumbnails.
        names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
        names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
        found = [FolderImage(folder / name, name.as_posix(), HandAttributes()) for name in names]
    if not found:
        raise DataError(f"{folder} holds no images ({', '.join(sorted(EXTENSIONS))}); give a folder with at least one")
    available = len(found)
    if limit is not None and limit < available:
        chosen = np.sort(np.random.default_rng(seed).choice(available, limit, replace=False))
        found = [found[index] for index in chosen]
    return ImageFolder(folder, tuple(found), available, has_metadata)


def read_metadata(path: Path) -> Iterator[FolderImage]:
    """Yield the images named by a `metadata.jsonl`. Raises DataError with the line's number for one that is wrong."""
    for place, row in read_rows(path):
        name = file_of_row(row, place)
        try:
            attributes = attributes_of_row(row)
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
        yield FolderImage(path.parent / name, name.as_posix(), attributes)
