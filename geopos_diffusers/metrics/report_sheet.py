"""evaluation.png: images of each model with landmarks, a frame by outcome and the fingers asked for and counted."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..errors import DataError
from ..images.contact_sheet import BACKGROUND, DEFAULT_CELL, contact_sheet
from ..images.opening import open_image
from .report_document import printable

SHEET_IMAGES = 48  # of one model; shared by several
SHEET_AT_LEAST = 4  # images of each outcome
COLUMNS = 8
RIGHT, WRONG, MISSING, UNKNOWN = (0, 140, 60), (225, 120, 0), (205, 20, 30), (110, 110, 110)
# Chains of landmarks from the wrist: thumb to pinky.
BONES = tuple((0, *range(first, first + 4)) for first in (1, 5, 9, 13, 17))
BONE_COLORS = ((255, 80, 80), (255, 180, 0), (90, 210, 60), (60, 170, 255), (200, 100, 255))

Row = dict[str, Any]  # an image of a report's document


def annotated_sheet(document: dict[str, Any], limit: int = SHEET_IMAGES) -> Image.Image:
    """Images of a report's document, model by model, as `folder_sheet` chooses them.

    Args:
        limit: images of all models together; each has at least a row of them.
    """
    folders = document["folders"]
    share = max(COLUMNS, limit // len(folders))
    sheets = [folder_sheet(folder, document["seed"], share, len(folders) > 1) for folder in folders]
    joined = Image.new("RGB", (max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)), BACKGROUND)
    top = 0
    for sheet in sheets:
        joined.paste(sheet, (0, top))
        top += sheet.height
    return joined


def folder_sheet(folder: dict[str, Any], seed: int, limit: int, named: bool) -> Image.Image:
    """At most `limit` images of a folder, or a few more; captions begin with its name where it is `named`.

    Green: the count is right. Orange: it is wrong. Red: no hand. Grey: a hand, and no number was asked for. Of more
    than `limit` images a random choice is shown in which the outcomes have about their true shares; each outcome
    has SHEET_AT_LEAST places if there are so many, so that rare failures can be seen.
    """
    rows = folder["images"]
    outcomes = [outcome_of(row) for row in rows]
    places: dict[tuple[int, int, int], int] = {}
    for color in (MISSING, WRONG, RIGHT, UNKNOWN):
        available = outcomes.count(color)
        places[color] = min(available, max(SHEET_AT_LEAST, available * limit // len(outcomes)))
    chosen = []
    for index in np.random.default_rng(seed).permutation(len(outcomes)):
        if places[outcomes[index]] > 0:
            places[outcomes[index]] -= 1
            chosen.append(int(index))
    chosen.sort()
    name = f"{folder['name']}: " if named else ""
    return contact_sheet(
        [annotate(Path(folder["path"]), rows[index]) for index in chosen],
        [printable(f"{name}{caption_of(rows[index])}") for index in chosen],
        columns=min(COLUMNS, len(chosen)),
    )


def outcome_of(row: Row) -> tuple[int, int, int]:
    """The colour of the frame."""
    if not row["hands"]:
        return MISSING
    asked = row["expected"]["fingers"]
    if asked is None:
        return UNKNOWN
    return RIGHT if row["counted"] == asked else WRONG


def caption_of(row: Row) -> str:
    asked = row["expected"]["fingers"]
    asked_text = "" if asked is None else f"asked {asked}, "
    hands = f", {len(row['hands'])} hands" if len(row["hands"]) > 1 else ""
    found = f"counted {row['counted']}{hands}" if row["hands"] else "no hand"
    return f"{asked_text}{found}\n{row['file_name']}"


def annotate(folder: Path, row: Row, cell: int = DEFAULT_CELL) -> Image.Image:
    """An image fitted into a cell of so many pixels, with the bones of all hands and a frame by outcome.

    A file that can no longer be read is left blank.
    """
    try:
        image = open_image(folder / row["file_name"])
    except DataError:
        image = Image.new("RGB", (row["width"], row["height"]), BACKGROUND)
    scale = cell / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    for hand in row["hands"]:
        points = [(x * scale, y * scale) for x, y, _ in hand["landmarks"]]
        for bone, color in zip(BONES, BONE_COLORS, strict=True):
            draw.line([points[index] for index in bone], fill=color, width=2)
            for x, y in (points[index] for index in bone[1:]):
                draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill="white", outline=color)
    draw.rectangle((0, 0, image.width - 1, image.height - 1), outline=outcome_of(row), width=5)
    return image
