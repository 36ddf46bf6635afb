"""An evaluation as plain values for JSON: `evaluation.json`, of which the table, the sheet and the page are made.

`evaluation.schema.json` beside this file describes them.
"""

import datetime
import json
import math
import platform
import re
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .bootstrap import CONFIDENCE, RESAMPLES, Interval
from .comparison import pair_images
from .evaluation import Evaluation, FingerScores, FolderEvaluation
from .finger_count import COUNTS, FINGER_REACH, THUMB_CLEARANCE, THUMB_REACH
from .hand_detection import BORDER, ENLARGED_SIZE, MINIMUM_CONFIDENCE, HandDetection
from .hand_judge import Judgement
from .measures import MEASURES
from .quality_measures import QUALITY
from .records import ScoredImage

FORMAT_VERSION = 2
SCHEMA_FILE = "evaluation.schema.json"
PACKAGES = ("geopos-diffusers", "mediapipe", "torch", "numpy", "pillow")
EXPANDED = 4  # levels of nesting that are broken into lines
SHORT = 12  # values in one line
SURROGATES = re.compile("[\ud800-\udfff]")
Document = dict[str, Any]


def evaluation_to_dict(evaluation: Evaluation) -> Document:
    """The evaluation as dicts, lists, strings and finite numbers: results, settings, versions, and every image.

    What is not known is None, never nan.
    """
    return {
        "format_version": FORMAT_VERSION,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": evaluation.seed,
        "notes": list(evaluation.notes),
        "measures": [measure_to_dict(name) for name in evaluation.measures],
        "quality_measures": quality_measures(evaluation),
        "comparisons": [asdict(comparison) for comparison in evaluation.comparisons],
        "pairings": pairings(evaluation),
        "matched_on": list(evaluation.match_on),
        "settings": {
            "interval": f"{CONFIDENCE:.0%}, {RESAMPLES} resamples where it is a bootstrap's",
            "minimum_confidence": MINIMUM_CONFIDENCE,
            "enlarged_to_pixels": ENLARGED_SIZE,
            "border_of_each_side": BORDER,
            "finger_rule": {"reach": FINGER_REACH, "thumb_reach": THUMB_REACH, "thumb_clearance": THUMB_CLEARANCE},
            **asdict(evaluation.settings) | {"extractors": list(evaluation.settings.extractors)},
            "components": evaluation.settings.components,
        },
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}},
        "reference": folder_to_dict(evaluation.reference, evaluation.measures),
        "folders": [folder_to_dict(folder, evaluation.measures) for folder in evaluation.folders],
    }


def measure_to_dict(name: str) -> Document:
    measure = MEASURES[name]
    names = ("name", "title", "kind", "better", "judge", "description", "digits", "warning")
    return {name: getattr(measure, name) for name in names}


def quality_measures(evaluation: Evaluation) -> list[Document]:
    """What the scores of sets are, by their keys "REGION/EXTRACTOR/SCORE", and of how few images they were computed."""
    folders = (*evaluation.folders, evaluation.reference)
    described = []
    for key in dict.fromkeys(key for folder in folders for key in folder.quality):
        region, *extractor, score = key.split("/")
        known = QUALITY[score]
        values = [folder.quality[key].value for folder in folders if key in folder.quality]
        largest = max((abs(value) for value in values if value is not None), default=0.0)
        described.append(
            {
                "name": key,
                "title": ", ".join([known.title, *extractor]),
                "better": known.better,
                "digits": 4 if largest < 1 else 2 if largest < 100 else 1,
                "usual_images": known.usual,
                "fewest_images": min(set_size(folder, region) for folder in folders),
            }
        )
    return described


def set_size(folder: FolderEvaluation, region: str) -> int:
    """Number of images, or of crops of hands."""
    entries = folder.scored.entries
    return len(entries) if region == "images" else sum(bool(row.hands) for row in entries)


def pairings(evaluation: Evaluation) -> list[Document]:
    """For each folder but the first, the indices of its images and of those of the first folder that form pairs."""
    sources = [[row.source for row in folder.scored.entries] for folder in evaluation.folders]
    found = []
    for folder, images in zip(evaluation.folders[1:], sources[1:], strict=True):
        pairs = pair_images(sources[0], images)
        indices = {"baseline_images": pairs.first.tolist(), "other_images": pairs.second.tolist()}
        found.append({"baseline": evaluation.folders[0].name, "other": folder.name, "how": pairs.how, **indices})
    return found


def folder_to_dict(folder: FolderEvaluation, measures: tuple[str, ...]) -> Document:
    scored, match = folder.scored, folder.match
    matched = None
    if match is not None:
        matched = {
            "attributes": list(match.attributes),
            "unmatched": len(match.unmatched),
            "unknown": match.unknown,
            "reference_images": int((match.weights > 0).sum()),
        }
    return {
        "name": folder.name,
        "path": str(scored.folder.path),
        "available": scored.folder.available,
        "scored": set_size(folder, "images"),
        "crops": set_size(folder, "crops"),
        "skipped": [{"file_name": name, "reason": reason} for name, reason in scored.skipped],
        "has_metadata": scored.folder.has_metadata,
        "matching": matched,
        "scores": intervals_to_dict(folder.scores, measures),
        "reference_scores": folder.reference_scores and intervals_to_dict(folder.reference_scores, measures),
        "found_ratio": folder.found_ratio and interval_to_dict(folder.found_ratio),
        "quality": intervals_to_dict(folder.quality),
        "agreement": intervals_to_dict(folder.agreement),
        "fingers": fingers_to_dict(folder.fingers),
        "images": [image_to_dict(row, folder, index, measures) for index, row in enumerate(scored.entries)],
    }


def fingers_to_dict(fingers: FingerScores) -> Document:
    by_number = {
        str(number): {
            "images": fingers.images[number],
            "found": interval_to_dict(fingers.found[number]),
            "count_right": interval_to_dict(fingers.count_right[number]),
        }
        for number in COUNTS
    }
    confusion = {
        "rows": "fingers asked for, 0 to 5",
        "columns": "fingers counted, 0 to 5, then no hand found",
        "images": fingers.confusion.tolist(),
    }
    return {"by_number": by_number, "confusion": confusion}


def image_to_dict(row: ScoredImage, folder: FolderEvaluation, index: int, measures: tuple[str, ...]) -> Document:
    return {
        "file_name": row.source.name,
        "prompt": row.source.text,
        "seed": row.source.seed,
        "sha256": row.sha256,
        "width": row.size[0],
        "height": row.size[1],
        "expected": asdict(row.source.attributes),
        "counted": row.counted,
        "hands": [hand_to_dict(hand) for hand in row.hands],
        "judgement": None if row.judgement is None else judgement_to_dict(row.judgement),
        "values": {name: finite(folder.values[name][index], 6) for name in measures},
    }


def hand_to_dict(hand: HandDetection) -> Document:
    return {
        "score": finite(hand.score),
        "presence": None if hand.presence is None else finite(hand.presence),
        "handedness": hand.handedness,
        "landmarks": np.round(hand.landmarks, 2).tolist(),
        "world_landmarks": np.round(hand.world_landmarks, 5).tolist(),
    }


def judgement_to_dict(judgement: Judgement) -> Document:
    return {
        "present": finite(judgement.present),
        "well_formed": finite(judgement.well_formed),
        "fingers": int(judgement.fingers),
        "finger_probabilities": np.round(judgement.finger_probabilities, 4).tolist(),
        "right_hand": finite(judgement.right_hand),
        "keypoints": np.round(judgement.keypoints, 2).tolist(),
    }


def intervals_to_dict(intervals: dict[str, Interval], names: tuple[str, ...] | None = None) -> Document:
    return {name: interval_to_dict(intervals[name]) for name in (intervals if names is None else names)}


def interval_to_dict(interval: Interval) -> Document:
    return {name: None if value is None else finite(value, 9) for name, value in asdict(interval).items()}


def finite(value: float, digits: int = 4) -> float | None:
    """The value rounded; None where it is nan or infinite."""
    return round(float(value), digits) if math.isfinite(value) else None


def version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def load_schema() -> Document:
    """The JSON Schema (draft 2020-12) of `evaluation.json`."""
    return json.loads(Path(__file__).with_name(SCHEMA_FILE).read_text(encoding="utf-8"))


def read_document(path: Path) -> Document:
    """A report's `evaluation.json`.

    Raises:
        DataError: it is missing, is no JSON object, or has another format version.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; give the folder of a report") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error})") from error
    found = document.get("format_version") if isinstance(document, dict) else None
    if found != FORMAT_VERSION:
        raise DataError(f"{path} has format_version {found}; this version reads {FORMAT_VERSION}: evaluate again")
    return document


def document_text(document: Document) -> str:
    """JSON that can be read: nested values in lines of their own, but what is short, and each image, in one line."""
    return escaped_surrogates(_lines(document, 0))


def escaped_surrogates(text: str) -> str:
    """JSON in which characters that UTF-8 cannot hold (half pairs, from broken texts and file names) are escapes."""
    return SURROGATES.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def printable(text: str) -> str:
    """The text with a question mark for every character that UTF-8 cannot hold."""
    return SURROGATES.sub("?", text)


def _lines(value: Any, level: int) -> str:
    if level == EXPANDED or not isinstance(value, (dict, list)) or _is_short(value):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    indent = " " * (level + 1)
    if isinstance(value, dict):
        items = [f"{json.dumps(str(key))}: {_lines(item, level + 1)}" for key, item in value.items()]
        opening, closing = "{", "}"
    else:
        items = [_lines(item, level + 1) for item in value]
        opening, closing = "[", "]"
    return f"{opening}\n{indent}" + f",\n{indent}".join(items) + f"\n{' ' * level}{closing}"


def _is_short(value: dict | list) -> bool:
    """Whether it holds few values, or numbers alone."""
    items = list(value.values()) if isinstance(value, dict) else value
    if isinstance(value, list) and all(isinstance(item, (int, float)) for item in items):
        return True
    inner = [item for item in items if isinstance(item, (dict, list))]
    return len(items) <= SHORT and all(len(item) <= 3 for item in inner) and len(inner) <= 1
