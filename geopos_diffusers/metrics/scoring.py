"""Scores of a scorer of your own: its mean over a folder of images, alone and beside a reference."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..errors import DataError
from ..images.opening import open_image
from .bootstrap import Interval, bootstrap_interval, mean
from .image_folder import list_images

# Takes an RGB image; returns its score, or None where the image has none.
Scorer = Callable[[Image.Image], float | None]


@dataclass(frozen=True)
class ImageScores:
    """The scores of a folder.

    Attributes:
        mean: over the images that have a score, with its 95% interval.
        scores: by file name within the folder; nan where the scorer gave None.
        skipped: files that could not be read, with the reason.
    """

    mean: Interval
    scores: dict[str, float]
    skipped: dict[str, str]


def score_images(
    folder: str | os.PathLike,
    scorer: Scorer,
    *,
    max_images: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> ImageScores:
    """Score every image of a folder: those that its `metadata.jsonl` names or, without one, all in it and below it.

    Args:
        scorer: called with each image, 8-bit RGB and upright, of any size. What else it needs (a network, captions) it
            may hold: any callable will do.
        max_images: score at most so many, chosen by `seed`.
        seed: also of the bootstrap.
        progress: show a progress bar on standard error.

    Raises:
        DataError: a folder that is missing, empty or has no readable image, or a score that is not a finite number.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> for name, gray in (("dark", 0), ("bright", 255)):
        ...     Image.new("RGB", (8, 8), (gray, gray, gray)).save(f"{folder}/{name}.png")
        >>> def brightness(image):
        ...     return np.asarray(image).mean() / 255
        >>> result = score_images(folder, brightness)
        >>> result.scores
        {'bright.png': 1.0, 'dark.png': 0.0}
        >>> result.mean
        Interval(value=0.5, low=0.0, high=1.0)
    """
    scores: dict[str, float] = {}
    skipped: dict[str, str] = {}
    for entry in tqdm(list_images(folder, max_images, seed).entries, unit="image", disable=not progress):
        try:
            image = open_image(entry.path)
        except DataError as error:
            skipped[entry.name] = str(error)
            continue
        scores[entry.name] = _checked(scorer(image), entry.name)
    if not scores:
        name, reason = next(iter(skipped.items()))
        raise DataError(f"{folder}: none of its {len(skipped)} images can be read (first: {name}, {reason})")
    return ImageScores(bootstrap_interval(mean, np.array(list(scores.values())), seed=seed), scores, skipped)


def compare_scores(images: ImageScores, reference: ImageScores, *, seed: int = 0) -> Interval:
    """Mean of the images less that of the reference, with its 95% interval; both sides are resampled, each by itself.

    Example:
        >>> both = Interval(None, None, None)
        >>> ours, theirs = (ImageScores(both, {"a": low, "b": low + 2}, {}) for low in (3.0, 1.0))
        >>> compare_scores(ours, theirs)
        Interval(value=2.0, low=0.0, high=4.0)
    """
    ours, theirs = (np.array(list(side.scores.values())) for side in (images, reference))
    return bootstrap_interval(lambda left, right: mean(left) - mean(right), ours, theirs, seed=seed)


def _checked(score: float | None, name: str) -> float:
    try:
        value = math.nan if score is None else float(score)
    except (TypeError, ValueError):
        value = math.inf
    if score is not None and not math.isfinite(value):
        raise DataError(f"the scorer gave {score!r} for {name}; give a finite number, or None for no score")
    return value
