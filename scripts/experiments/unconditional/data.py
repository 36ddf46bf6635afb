"""Photographs as folders of small images: hands split by subject, faces as they come."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from geopos_diffusers.files import atomic_directory
from geopos_diffusers.images.metadata import METADATA

from ..photographs import read_photographs

VALIDATION_SUBJECTS = 8  # every so many of the training subjects is kept for choosing learning rates


def export(rows: Iterable[dict[str, Any]], target: Path, size: int, kept: Sequence[str] = ("label",)) -> None:
    """Write images of `size` pixels a side, with the columns that are kept."""
    with atomic_directory(target) as folder, open(folder / METADATA, "w", encoding="utf-8") as metadata:
        for index, row in enumerate(rows):
            name = f"{index:06d}.png"
            row["image"].resize((size, size), Image.Resampling.BICUBIC).save(folder / name)
            metadata.write(json.dumps({"file_name": name, **{column: row[column] for column in kept}}) + "\n")


def export_hands(source: Path, work: Path, size: int, kept: Sequence[str] = ("label",)) -> dict[str, Path]:
    """Folders "train" and "validation", of different training subjects, and "test", of the test subjects.

    Args:
        kept: columns that go into the images' metadata.
    """
    folders = {name: work / f"photographs-{name}" for name in ("train", "validation", "test")}
    if not all(folder.is_dir() for folder in folders.values()):
        columns = ("image", "subject", *kept)
        rows = read_photographs(source / "train.parquet", columns)
        held = [row["subject"] % VALIDATION_SUBJECTS == 0 for row in rows]
        export((row for row, out in zip(rows, held, strict=True) if not out), folders["train"], size, kept)
        export((row for row, out in zip(rows, held, strict=True) if out), folders["validation"], size, kept)
        export(read_photographs(source / "test.parquet", columns), folders["test"], size, kept)
    return folders


def export_faces(source: Path, work: Path, size: int, validation: int) -> dict[str, Path]:
    """Folders "train", "validation" (evenly `validation` of the training images), and "test"."""
    folders = {name: work / f"faces-{name}" for name in ("train", "validation", "test")}
    if not all(folder.is_dir() for folder in folders.values()):
        rows = read_photographs(source / "train.parquet")
        chosen = {index * len(rows) // validation for index in range(validation)}
        export((row for index, row in enumerate(rows) if index not in chosen), folders["train"], size)
        export((rows[index] for index in sorted(chosen)), folders["validation"], size)
        export(read_photographs(source / "test.parquet"), folders["test"], size)
    return folders
