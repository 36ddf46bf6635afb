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
from scipy import ndimage

from geopos_diffusers.images.hand_boxes import MARGINS
from geopos_diffusers.metrics.box_overlap import box_overlap
from geopos_diffusers.metrics.hand_detection import HandDetector
from geopos_diffusers.metrics.hand_judge import HandJudge

MARGIN = MARGINS["keypoints"]  # of `geopos data boxes`
DIFFERENT = 40  # of 255, in the channel that differs most
UPPER_PART = 0.35  # of the asked height: above all wrists
LEAST_SHARE = 0.005  # of the image, of a silhouette
LEAST_PART = 0.01  # of the image, of a part of the silhouette that counts
SIZE_GROUPS = 4  # that hands are compared in, each as large as the others among the asked boxes


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


def silhouette_parts(image: Image.Image) -> int:
    """How many separate things stand before a plain background: connected parts of the silhouette."""
    labels, count = ndimage.label(silhouette(image), np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return int((sizes >= LEAST_PART * labels.size).sum())


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
        for image, row, described in zip(images, rows, describe(images, judge), strict=True):
            x, top = silhouette_place(image, row["box"][3] - row["box"][1])
            seen = {"mediapipe": bool(detector.detect(image)), "silhouette_x": x, "silhouette_top": top}
            found.append(described | seen)
    return found


def describe(images: Sequence[Image.Image], judge: HandJudge) -> list[dict[str, Any]]:
    """What the judge says of each image, and how many parts its silhouette has."""
    return [
        {
            "present": judged.present,
            "well_formed": judged.well_formed,
            "fingers": judged.fingers,
            "box": keypoint_box(judged.keypoints, image.width, image.height).tolist(),
            "parts": silhouette_parts(image),
        }
        for image, judged in zip(images, judge.judge(images), strict=True)
    ]


def one_hand(found: Sequence[dict[str, Any]]) -> np.ndarray:
    """Of each image [N], whether a hand is found and nothing stands beside it."""
    return np.array([one["present"] > 0.5 and one["parts"] == 1 for one in found])


def scores(found: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Means over the images: of all, and of those in which a hand is found where that is needed; None of too few.

    `found`: share of images with a hand; `mediapipe_found`: by MediaPipe, which misses small ones.
    `centre_error`: mean distance of the boxes' middles, in shares of the image.
    `iou`: median. `correlation_x`, `_y`: of the middles. `width_correlation`, `height_correlation`: of the sizes.
    `fingers`: share of the found with the asked number. `silhouette_x`, `silhouette_top`: correlations of its place
    with the box's middle and upper edge. `one_hand`: share of images with a hand and a silhouette of one part.
    `size`: mean of the boxes' sizes (root of the area), in shares of the image.
    `fingers_at_sizes`, `well_formed_at_sizes`: what they would be if hands were as large as the asked boxes; see
    `at_sizes`.
    """
    present = np.array([one["present"] > 0.5 for one in found])
    asked, got = (np.array([one["box"] for one in group]) for group in (rows, found))
    middles = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (asked, got)]
    sizes = [boxes[:, 2:] - boxes[:, :2] for boxes in (asked, got)]
    roots = [np.sqrt(extents.prod(1)) for extents in sizes]
    right = np.array([one["fingers"] == row["fingers"] for one, row in zip(found, rows, strict=True)])
    well_formed = np.array([one["well_formed"] for one in found])
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
        "well_formed": mean(well_formed[present]),
        "one_hand": float(one_hand(found).mean()),
        "size": mean(roots[1][present]),
        "fingers_at_sizes": at_sizes(right[present], roots[1][present], roots[0]),
        "well_formed_at_sizes": at_sizes(well_formed[present], roots[1][present], roots[0]),
        "silhouette_seen": float(seen.mean()),
        "silhouette_x": correlation(middles[0][seen, 0], places[seen, 0]),
        "silhouette_top": correlation(asked[seen, 1], places[seen, 1]),
    }


def at_sizes(values: np.ndarray, sizes: np.ndarray, asked: np.ndarray) -> float | None:
    """The mean of `values` [N] if their hands had the sizes that were asked for (direct standardisation).

    Small hands are harder, and an arm that is free to choose may draw fewer of them. The asked sizes [M] make
    SIZE_GROUPS groups of as many boxes each; `sizes` [N] say which a value belongs to. Returns the mean of the groups'
    means; None where a group has no value.

    Example:
        >>> at_sizes(np.array([0, 1, 1, 1, 1]), np.array([1, 2, 3, 4, 4]), np.array([1, 2, 3, 4]))
        0.75
    """
    groups = np.digitize(sizes, np.quantile(asked, np.arange(1, SIZE_GROUPS) / SIZE_GROUPS))
    if len(set(groups)) < SIZE_GROUPS:
        return None
    return float(np.mean([values[groups == group].mean() for group in range(SIZE_GROUPS)]))


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
