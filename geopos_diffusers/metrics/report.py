"""An evaluation as JSON, as a table for the terminal and as an annotated contact sheet."""

import datetime
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..files import atomic_path, write_json
from ..images.contact_sheet import DEFAULT_CELL, contact_sheet
from ..images.opening import open_image
from .bootstrap import CONFIDENCE, RESAMPLES, Interval
from .evaluation import KID_NAME, EvaluationReport, HandScores, ScoredFolder, ScoredImage
from .features import SIDE, WEIGHTS_WHEEL
from .finger_count import COUNTS, FINGER_REACH, THUMB_CLEARANCE, THUMB_REACH
from .hand_detection import BORDER, ENLARGED_SIZE, MINIMUM_CONFIDENCE
from .kid import SUBSETS

FORMAT_VERSION = 1
JSON_FILE, TABLE_FILE, SHEET_FILE = "evaluation.json", "evaluation.txt", "evaluation.png"
PACKAGES = ("geopos-diffusers", "mediapipe", "torch", "numpy", "pillow")

SHEET_IMAGES = 48
SHEET_AT_LEAST = 4
RIGHT, WRONG, MISSING, UNKNOWN = (0, 140, 60), (225, 120, 0), (205, 20, 30), (110, 110, 110)
# Chains of landmarks from the wrist: thumb to pinky.
BONES = tuple((0, *range(first, first + 4)) for first in (1, 5, 9, 13, 17))
BONE_COLORS = ((255, 80, 80), (255, 180, 0), (90, 210, 60), (60, 170, 255), (200, 100, 255))


def write_report(report: EvaluationReport, output: str | os.PathLike) -> dict[str, Path]:
    """Write evaluation.json, evaluation.txt and evaluation.png into the folder `output`; returns their paths."""
    output = Path(output)
    paths = {name: output / name for name in (JSON_FILE, TABLE_FILE, SHEET_FILE)}
    sheet = annotated_sheet(report.images, report.seed)
    write_json(paths[JSON_FILE], report_to_dict(report))
    with atomic_path(paths[TABLE_FILE]) as temporary:
        temporary.write_text(format_table(report) + "\n", encoding="utf-8")
    with atomic_path(paths[SHEET_FILE]) as temporary:
        sheet.save(temporary)
    return paths


def report_to_dict(report: EvaluationReport) -> dict[str, Any]:
    """The report as plain values for JSON: results, settings, versions, and a record of every evaluated image."""
    return {
        "format_version": FORMAT_VERSION,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "images": folder_to_dict(report.images, report.image_scores),
        "reference": {
            **folder_to_dict(report.reference, report.reference_scores),
            "found_unmatched": asdict(report.reference_found_unmatched),
        },
        "found_ratio": asdict(report.found_ratio),
        "matching": {
            "asked_for": list(report.match_on),
            "matched": list(report.match.attributes),
            "images_without_match": len(report.match.unmatched),
            "images_that_say_nothing": report.match.unknown,
        },
        KID_NAME: None if report.kid is None else asdict(report.kid),
        f"{KID_NAME} of the reference's halves": None if report.kid_floor is None else asdict(report.kid_floor),
        "notes": list(report.notes),
        "settings": {
            "seed": report.seed,
            "interval": f"{CONFIDENCE:.0%} percentile bootstrap, {RESAMPLES} resamples; KID: {SUBSETS} random halves",
            "detector": "MediaPipe HandLandmarker, IMAGE mode, one hand",
            "detector_task_sha256": report.images.task_sha256,
            "minimum_confidence": MINIMUM_CONFIDENCE,
            "enlarged_to_pixels": ENLARGED_SIZE,
            "border_of_each_side": BORDER,
            "finger_rule": {"reach": FINGER_REACH, "thumb_reach": THUMB_REACH, "thumb_clearance": THUMB_CLEARANCE},
            "kid_extractor": f"{WEIGHTS_WHEEL.requirement}, {SIDE}x{SIDE}, bilinear",
        },
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}},
        "pictures": [image_to_dict(scored) for scored in report.images.entries],
    }


def folder_to_dict(scored: ScoredFolder, scores: HandScores) -> dict[str, Any]:
    return {
        "folder": str(scored.folder.path),
        "available": scored.folder.available,
        "scored": len(scored.entries),
        "skipped": [{"file_name": name, "reason": reason} for name, reason in scored.skipped],
        "has_metadata": scored.folder.has_metadata,
        **{
            name: asdict(getattr(scores, name))
            for name in ("found", "score", "count_right", "found_and_right", "count_error")
        },
        "by_fingers": {
            str(number): {
                "pictures": scores.images_by_fingers[number],
                "found": asdict(scores.found_by_fingers[number]),
                "count_right": asdict(scores.right_by_fingers[number]),
            }
            for number in COUNTS
        },
        "confusion": {
            "rows": "fingers expected, 0 to 5",
            "columns": "fingers counted, 0 to 5, then no hand found",
            "pictures": scores.confusion.tolist(),
        },
    }


def image_to_dict(scored: ScoredImage) -> dict[str, Any]:
    found = scored.detection
    return {
        "file_name": scored.source.name,
        "expected": asdict(scored.source.attributes),
        "found": found is not None,
        "score": None if found is None else round(found.score, 4),
        "handedness": None if found is None else found.handedness,
        "counted": scored.counted,
        "landmarks": None if found is None else np.round(found.landmarks, 2).tolist(),
    }


def version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def format_table(report: EvaluationReport) -> str:
    """The figures as text, at most 100 columns wide."""
    ours, theirs = report.image_scores, report.reference_scores
    kid_rows = [] if report.kid is None else [(KID_NAME, decimal(report.kid, 4), floor_text(report.kid_floor))]
    rows = [
        ("", "images", "reference, matched"),
        ("images", image_count(report.images), image_count(report.reference)),
        ("hand found", percent(ours.found), percent(theirs.found)),
        ("  images / reference", decimal(report.found_ratio, 3), ""),
        ("mean detector score", decimal(ours.score, 3), decimal(theirs.score, 3)),
        ("finger count right, if found", percent(ours.count_right), percent(theirs.count_right)),
        ("found and count right", percent(ours.found_and_right), percent(theirs.found_and_right)),
        ("mean error, fingers", decimal(ours.count_error, 2), decimal(theirs.count_error, 2)),
        *kid_rows,
    ]
    parts = [align(rows), "In brackets: 95% intervals."]
    if any(ours.images_by_fingers.values()):
        parts += ["", align(by_fingers_rows(report)), "", *confusion_lines(ours.confusion)]
    return "\n".join([*parts, "", *(f"- {note}" for note in report.notes)]).rstrip()


def by_fingers_rows(report: EvaluationReport) -> list[tuple[str, ...]]:
    ours, theirs = report.image_scores, report.reference_scores
    return [
        ("fingers asked for", *(str(number) for number in COUNTS)),
        ("images", *(str(ours.images_by_fingers[number]) for number in COUNTS)),
        ("hand found", *(short_percent(ours.found_by_fingers[number]) for number in COUNTS)),
        ("  reference", *(short_percent(theirs.found_by_fingers[number]) for number in COUNTS)),
        ("count right, if found", *(short_percent(ours.right_by_fingers[number]) for number in COUNTS)),
        ("  reference", *(short_percent(theirs.right_by_fingers[number]) for number in COUNTS)),
    ]


def confusion_lines(confusion: np.ndarray) -> list[str]:
    header = ("asked for \\ counted", *(str(number) for number in COUNTS), "no hand")
    rows = [(str(number), *(str(value) for value in confusion[number])) for number in COUNTS]
    return align([header, *rows]).splitlines()


def align(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def image_count(scored: ScoredFolder) -> str:
    skipped = f" ({len(scored.skipped)} skipped)" if scored.skipped else ""
    return f"{len(scored.entries)} of {scored.folder.available}{skipped}"


def percent(interval: Interval) -> str:
    if interval.value is None or interval.low is None or interval.high is None:
        return "-"
    return f"{interval.value:.1%} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def short_percent(interval: Interval) -> str:
    return "-" if interval.value is None else f"{interval.value:.0%}"


def decimal(interval: Interval, digits: int) -> str:
    if interval.value is None:
        return "-"
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def floor_text(floor: Interval | None) -> str:
    return "-" if floor is None else f"{floor.value:.4f} (its two halves)"


def annotated_sheet(scored: ScoredFolder, seed: int, limit: int = SHEET_IMAGES) -> Image.Image:
    """Images with their landmarks, a frame by outcome and the fingers asked for and counted.

    Green: the count is right. Orange: it is wrong. Red: no hand. Grey: a hand, and no number was asked for. Of more
    than `limit` images a random choice is shown in which the outcomes have about their true shares; each outcome
    has SHEET_AT_LEAST places if there are so many, so that rare failures can be seen.
    """
    outcomes = [outcome_of(row) for row in scored.entries]
    order = np.random.default_rng(seed).permutation(len(outcomes))
    places: dict[tuple[int, int, int], int] = {}
    for color in (MISSING, WRONG, RIGHT, UNKNOWN):
        available = outcomes.count(color)
        places[color] = min(available, max(SHEET_AT_LEAST, available * limit // len(outcomes)))
    chosen = []
    for index in order:
        if places[outcomes[index]] > 0:
            places[outcomes[index]] -= 1
            chosen.append(int(index))
    chosen.sort()
    return contact_sheet(
        [annotate(scored.entries[index], outcomes[index]) for index in chosen],
        [caption_of(scored.entries[index]) for index in chosen],
        columns=min(8, len(chosen)),
    )


def outcome_of(scored: ScoredImage) -> tuple[int, int, int]:
    if scored.detection is None:
        return MISSING
    if scored.source.attributes.fingers is None:
        return UNKNOWN
    return RIGHT if scored.counted == scored.source.attributes.fingers else WRONG


def caption_of(scored: ScoredImage) -> str:
    asked = scored.source.attributes.fingers
    asked_text = "" if asked is None else f"asked {asked}, "
    found = "no hand" if scored.detection is None else f"counted {scored.counted} ({scored.detection.score:.2f})"
    return f"{asked_text}{found}\n{scored.source.name}"


def annotate(scored: ScoredImage, color: tuple[int, int, int]) -> Image.Image:
    """The image fitted into a cell, with bones drawn from its landmarks and a frame of `color`."""
    image = open_image(scored.source.path)
    scale = DEFAULT_CELL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    smaller = scale < 1
    image = image.resize(size, Image.Resampling.LANCZOS if smaller else Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    if scored.detection is not None:
        points = scored.detection.landmarks[:, :2] * scale
        for bone, bone_color in zip(BONES, BONE_COLORS, strict=True):
            draw.line([tuple(points[index]) for index in bone], fill=bone_color, width=2)
            for index in bone[1:]:
                x, y = points[index]
                draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill="white", outline=bone_color)
    draw.rectangle((0, 0, image.width - 1, image.height - 1), outline=color, width=5)
    return image
