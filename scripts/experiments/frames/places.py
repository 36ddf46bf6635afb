"""Where the hands of generated images are, beside the boxes that were asked for.

A judge that finds the small hands of 64 pixels too is the package's second one (`HandJudge`): its key points with a
margin make the box. Independent of every network is the silhouette: the background of these images is plain, so what
differs from it is hand and arm. Arms come from below; so the silhouette's upper edge and the middle of its upper part
say where the hand is, and its box does not.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from geopos_diffusers.images.hand_boxes import MARGINS
from geopos_diffusers.metrics.box_overlap import box_overlap
from geopos_diffusers.metrics.hand_detection import HandDetector
from geopos_diffusers.metrics.hand_judge import HandJudge, Judgement

MARGIN = MARGINS["keypoints"]  # of `geopos data boxes`
DIFFERENT = 40  # of 255, in the channel that differs most
UPPER_PART = 0.35  # of the asked height: above all wrists
LEAST_SHARE = 0.005  # of the image, of a silhouette


def keypoint_box(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """The box [4] of key points [21, 2] in pixels, in shares of the image, cut off at its edges."""
    low, high = points.min(0), points.max(0)
    space = MARGIN * (high - low).max()
    return np.clip(np.concatenate([low - space, high + space]) / [width, height, width, height], 0, 1)


def silhouette(image: Image.Image) -> np.ndarray:
    """[H, W] bool: the pixels that differ from the most frequent colour of the upper edge and the two sides."""
    pixels = np.asarray(image.convert("RGB")).astype(int)
    edge = np.concatenate([pixels[0], pixels[: len(pixels) // 2, 0], pixels[: len(pixels) // 2, -1]])
    coarse, counts = np.unique(edge // 16, axis=0, return_counts=True)
    near = (edge // 16 == coarse[counts.argmax()]).all(1)
    return np.abs(pixels - np.median(edge[near], 0)).max(2) > DIFFERENT


def silhouette_place(image: Image.Image, asked_height: float) -> tuple[float | None, float | None]:
    """The middle across of the silhouette's upper part, and its upper edge, in shares of the image; None without one.

    Rows count from where two pixels differ, so that no single one decides.
    """
    mask = silhouette(image)
    rows = np.flatnonzero(mask.sum(1) >= 2)
    if mask.mean() < LEAST_SHARE or not len(rows):
        return None, None
    top = int(rows[0])
    upper = mask[top : top + max(1, round(UPPER_PART * asked_height * len(mask)))]
    columns = np.flatnonzero(upper.any(0))
    return float(columns[0] + columns[-1] + 1) / 2 / mask.shape[1], top / len(mask)


def measure(images: Sequence[Image.Image], rows: Sequence[dict[str, Any]], judge: HandJudge) -> list[dict[str, Any]]:
    """What is found of each image, by name; rows hold the asked "box" and number of "fingers"."""
    found = []
    with HandDetector() as detector:
        for image, row, judged in zip(images, rows, judge.judge(images), strict=True):
            x, top = silhouette_place(image, row["box"][3] - row["box"][1])
            seen = {"mediapipe": bool(detector.detect(image)), "silhouette_x": x, "silhouette_top": top}
            found.append(describe(judged, image) | seen)
    return found


def describe(judged: Judgement, image: Image.Image) -> dict[str, Any]:
    return {
        "present": judged.present,
        "well_formed": judged.well_formed,
        "fingers": judged.fingers,
        "box": keypoint_box(judged.keypoints, image.width, image.height).tolist(),
    }


def scores(found: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Means over the images: of all, and of those in which a hand is found where that is needed; None of too few.

    `found`: share of images with a hand; `mediapipe_found`: by MediaPipe, which misses small ones.
    `centre_error`: mean distance of the boxes' middles, in shares of the image.
    `iou`: median. `correlation_x`, `_y`: of the middles. `width_correlation`, `height_correlation`: of the sizes.
    `fingers`: share of the found with the asked number. `silhouette_x`, `silhouette_top`: correlations of its place
    with the box's middle and upper edge.
    """
    present = np.array([one["present"] > 0.5 for one in found])
    asked, got = (np.array([one["box"] for one in group]) for group in (rows, found))
    middles = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (asked, got)]
    sizes = [boxes[:, 2:] - boxes[:, :2] for boxes in (asked, got)]
    right = np.array([one["fingers"] == row["fingers"] for one, row in zip(found, rows, strict=True)])
    places = np.array([[one["silhouette_x"], one["silhouette_top"]] for one in found], float)
    seen = np.isfinite(places).all(1)
    return {
        "found": float(present.mean()),
        "mediapipe_found": float(np.mean([one["mediapipe"] for one in found])),
        "centre_error": mean(np.linalg.norm(middles[0] - middles[1], axis=1)[present]),
        "iou": float(np.median(box_overlap(asked, got)[present])) if present.any() else None,
        "correlation_x": correlation(middles[0][present, 0], middles[1][present, 0]),
        "correlation_y": correlation(middles[0][present, 1], middles[1][present, 1]),
        "width_correlation": correlation(sizes[0][present, 0], sizes[1][present, 0]),
        "height_correlation": correlation(sizes[0][present, 1], sizes[1][present, 1]),
        "fingers": mean(right[present]),
        "well_formed": mean(np.array([one["well_formed"] for one in found])[present]),
        "silhouette_seen": float(seen.mean()),
        "silhouette_x": correlation(middles[0][seen, 0], places[seen, 0]),
        "silhouette_top": correlation(asked[seen, 1], places[seen, 1]),
    }


def image_columns(found: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Scores of each image [N], 0 where no hand is found: "fingers", whether their number is right; "well_formed", how
    probable that is; "iou" with the asked box.
    """
    present = np.array([one["present"] > 0.5 for one in found])
    right = [one["fingers"] == row["fingers"] for one, row in zip(found, rows, strict=True)]
    asked, got = (np.array([one["box"] for one in group]) for group in (rows, found))
    return {
        "fingers": present * np.array(right, float),
        "well_formed": present * np.array([one["well_formed"] for one in found]),
        "iou": present * box_overlap(asked, got),
    }


def mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    if len(first) < 3 or first.std() == 0 or second.std() == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])
