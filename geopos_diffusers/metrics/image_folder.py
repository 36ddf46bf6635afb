"""Reads a folder of images to be scored: any images, and `metadata.jsonl` if there is one.

Links are followed, to files outside the folder too: a data set of the Hub's cache is made of them.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..images.metadata import METADATA, file_of_row, read_rows
from .hand_attributes import HandAttributes, attributes_of_row

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


@dataclass(frozen=True)
class FolderImage:
    """An image's path, its name within the folder, and what `metadata.jsonl` says of it.

    text: the prompt it was generated from, or a caption. seed: of its noise. `geopos generate` writes both.
    keypoints: [21, 2] float64, where the hand's joints should be: x, y in pixels of the upright image, in MediaPipe's
        order. `geopos data hands` writes them.
    boxes: [K, 4] float64, where hands were asked for, see `boxes_of_row`. `geopos generate --box` writes them.
    """

    path: Path
    name: str
    attributes: HandAttributes
    text: str | None = None
    seed: int | None = None
    keypoints: np.ndarray | None = field(default=None, compare=False)
    boxes: np.ndarray | None = field(default=None, compare=False)


@dataclass(frozen=True)
class ImageFolder:
    """The images chosen from a folder, how many it holds, and whether `metadata.jsonl` named them.

    repeated: rows of it that name an image again; they do not count.
    """

    path: Path
    entries: tuple[FolderImage, ...]
    available: int
    has_metadata: bool
    repeated: int = 0


def list_images(folder: str | os.PathLike, limit: int | None = None, seed: int = 0) -> ImageFolder:
    """The images that `metadata.jsonl` of `folder` names or, without one, all image files in it and below it.

    Args:
        limit: at most so many images, chosen by `seed` and their names, in their order: folders with the same names
            keep the same ones, also where some names are missing in one of them.

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
        paths = (path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and not path.is_dir())
        names = sorted(path.relative_to(folder) for path in paths)
        names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
        found = [FolderImage(folder / name, name.as_posix(), HandAttributes()) for name in names]
    named = {image.name: image for image in reversed(found)}
    repeated = len(found) - len(named)
    found = [image for image in found if named[image.name] is image]
    if not found:
        raise DataError(f"{folder} holds no images ({', '.join(sorted(EXTENSIONS))}); give a folder with at least one")
    available = len(found)
    if limit is not None and limit < available:
        chosen = set(sorted(named, key=lambda name: sha256(f"{seed}/{name}".encode()).digest())[:limit])
        found = [image for image in found if image.name in chosen]
    return ImageFolder(folder, tuple(found), available, has_metadata, repeated)


def read_metadata(path: Path) -> Iterator[FolderImage]:
    """Yield the images named by a `metadata.jsonl`. Raises DataError with the line's number for one that is wrong."""
    for place, row in read_rows(path):
        name = file_of_row(row, place)
        try:
            attributes = attributes_of_row(row)
            seed, keypoints, boxes = seed_of_row(row), keypoints_of_row(row), boxes_of_row(row)
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
        yield FolderImage(path.parent / name, name.as_posix(), attributes, row.get("text"), seed, keypoints, boxes)


def seed_of_row(row: Mapping[str, Any]) -> int | None:
    """Raises DataError if the seed is not a whole number."""
    seed = row.get("seed")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise DataError(f"seed is {seed!r:.80}; it must be a whole number")
    return seed


def keypoints_of_row(row: Mapping[str, Any]) -> np.ndarray | None:
    """[21, 2] float64 or None. Raises DataError if they are not 21 pairs of finite numbers."""
    given = row.get("keypoints")
    if given is None:
        return None
    keypoints = _finite_numbers(given)
    if keypoints is None or keypoints.shape != (21, 2):
        raise DataError("keypoints must be 21 pairs [x, y] of finite numbers, in pixels")
    return keypoints


def boxes_of_row(row: Mapping[str, Any]) -> np.ndarray | None:
    """The `boxes` of a row of metadata, or its one `box`, as [K, 4] float64: x0, y0, x1, y1; None where it has neither.

    In shares of the image, as `geopos generate` writes them, or in pixels where a number is above 1.

    Raises:
        DataError: not four finite numbers each, below 0, empty or reversed.
    """
    given = row.get("boxes")
    if given is None and row.get("box") is not None:
        given = [row["box"]]
    if given is None:
        return None
    boxes, rename = _finite_numbers(given), "call the field otherwise if it is something else"
    if boxes is None or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f"box must be four finite numbers x0, y0, x1, y1, and boxes a list of such; {rename}")
    wrong = (boxes < 0).any(1) | (boxes[:, :2] >= boxes[:, 2:]).any(1)
    if wrong.any():
        shown = boxes[wrong][0].tolist()
        raise DataError(f"box {shown} is below 0, empty or reversed; it must be x0, y0, x1, y1; {rename}")
    return boxes


def _finite_numbers(given: Any) -> np.ndarray | None:
    """Nested lists of finite numbers as float64; None of anything else."""
    try:
        values = np.array(given)
    except ValueError:  # lists of different lengths
        return None
    # Texts, nulls and truth values have other kinds than whole numbers and floats.
    return values.astype(np.float64) if values.dtype.kind in "iuf" and np.isfinite(values).all() else None
