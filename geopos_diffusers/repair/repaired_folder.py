"""Repairing image files into a folder: the repaired images, contact sheets, and repair.json."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..boxes import Box
from ..errors import DataError
from ..files import atomic_directory, write_json
from ..images.contact_sheet import contact_sheet
from ..metrics.hand_judge import HandJudge
from .options import RepairOptions
from .picture_files import open_picture, save_picture
from .repairing import Repair, RepairedHand, repair_image
from .report import CELL, before_and_after, captions_of, record_of, sheet_of_hands

RECORD, SHEET, HANDS_SHEET = "repair.json", "contact_sheet.png", "hands.png"
SHEET_IMAGES, SHEET_HANDS = 50, 50  # no more are shown
OWN_NAMES = {RECORD, SHEET, HANDS_SHEET}


@dataclass(frozen=True)
class RepairTask:
    """An image file to repair: the boxes of its hands, in shares of it, who found them, and what to draw."""

    path: Path
    boxes: list[Box]
    found_by: str
    prompt: str

    @property
    def written(self) -> str:
        """Name of the repaired image's file."""
        return f"{self.path.stem}.png"


@dataclass(frozen=True)
class RepairCounts:
    """How many hands there were, how many were drawn anew, and how many of those were pasted."""

    hands: int
    tried: int
    replaced: int


def check_names(paths: Sequence[Path], output: Path) -> None:
    """Refuse images that would be written over, by each other or by the report.

    Raises:
        DataError: says which.
    """
    names: dict[str, Path] = {}
    for path in paths:
        name = f"{path.stem}.png"
        if name in OWN_NAMES:
            raise DataError(f"{path} would be written as {name}, which is the report's; rename it")
        if name in names:
            raise DataError(f"{names[name]} and {path} would both be written as {name}; repair them one by one")
        names[name] = path
        if path.resolve().is_relative_to(output.resolve()):
            raise DataError(f"{path} lies in the output folder {output}, which is written anew; choose another")


def repair_files(
    pipe: Any,
    tasks: Sequence[RepairTask],
    output: Path,
    options: RepairOptions,
    settings: dict[str, Any],
    *,
    judge: HandJudge,
    advance: Callable[[int], object] = lambda count: None,
) -> RepairCounts:
    """Repair images one after the other into the folder `output`, which appears when all is done.

    Args:
        pipe: as for `repair_image`, as are `judge` and `advance`.
        settings: recorded beside `options`, such as the model's name.

    Raises:
        GeoPosError: as `repair_image` and `open_picture`; nothing is written then.
    """
    record: list[dict[str, Any]] = []
    shown: list[Any] = []
    captions: list[str] = []
    hands: list[tuple[str, RepairedHand]] = []
    counts = RepairCounts(0, 0, 0)
    settings = settings | asdict(options)
    with atomic_directory(output) as folder:
        for task in tasks:
            picture = open_picture(task.path)
            repair = repair_image(pipe, picture, task.boxes, task.prompt, options, judge=judge, advance=advance)
            entry = {"image": str(task.path), "written": task.written, "size": list(picture.size)}
            entry |= {"prompt": task.prompt, "found_by": task.found_by, "hands": [*map(record_of, repair.hands)]}
            record.append(entry)
            save_picture(repair.image, folder / task.written, picture, {"repair": entry, "settings": settings})
            counts = _added(counts, repair)
            if len(shown) < 2 * SHEET_IMAGES:
                shown += before_and_after(picture, repair)
                captions += captions_of(task.path.name, repair)
            hands += [(task.path.name, hand) for hand in repair.hands][: SHEET_HANDS - len(hands)]
        contact_sheet(shown, captions, 2, CELL).save(folder / SHEET)
        sheet_of_hands(hands).save(folder / HANDS_SHEET)
        write_json(folder / RECORD, {"settings": settings, "images": record})
    return counts


def _added(counts: RepairCounts, repair: Repair) -> RepairCounts:
    return RepairCounts(
        counts.hands + len(repair.hands),
        counts.tried + sum(bool(hand.candidates) for hand in repair.hands),
        counts.replaced + sum(hand.chosen is not None for hand in repair.hands),
    )
