"""Pictures of what the arms of an experiment draw: a row of images for each, its name under the first."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from geopos_diffusers.files import atomic_path
from geopos_diffusers.images.contact_sheet import contact_sheet


def write_rows(target: Path, rows: Iterable[tuple[str, Sequence[Image.Image]]], cell: int) -> None:
    """Write a PNG of rows of equally many images, each image `cell` pixels a side."""
    images: list[Image.Image] = []
    captions: list[str] = []
    for name, row in rows:
        images += row
        captions += [name, *[""] * (len(row) - 1)]
    with atomic_path(target) as temporary:
        contact_sheet(images, captions, columns=len(row), cell=cell).save(temporary, format="PNG")
