"""Scores a folder of images of hands beside a folder of reference images."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..errors import DataError
from ..images.opening import open_image
from .bootstrap import Interval
from .detection_rate import (
    MATCHED_BY_DEFAULT,
    ReferenceMatch,
    match_reference,
    matched_rate,
    rate,
    rate_ratio,
)
from .features import EXTRACTOR, MobileNetV2, extract_features, load_mobilenet
from .finger_count import COUNTS, confusion_matrix, count_fingers, count_scores
from .hand_attributes import ATTRIBUTES, HandAttributes
from .hand_detection import HandDetection, HandDetector
from .image_folder import FolderImage, ImageFolder, list_images
from .kid import MINIMUM_IMAGES, kid

KID_NAME = f"KID-{EXTRACTOR}"


@dataclass(frozen=True)
class ScoredImage:
    """An image with the hand that was found (None: no hand) and its raised fingers."""

    source: FolderImage
    size: tuple[int, int]
    detection: HandDetection | None
    counted: int | None


@dataclass(frozen=True)
class ScoredFolder:
    """A folder after detection. skipped: name and reason of each unreadable image. features: [N, 1280] or None.

    task_sha256: of the detector's model.
    """

    folder: ImageFolder
    entries: tuple[ScoredImage, ...]
    skipped: tuple[tuple[str, str], ...]
    features: np.ndarray | None
    task_sha256: str

    @property
    def attributes(self) -> list[HandAttributes]:
        return [scored.source.attributes for scored in self.entries]


@dataclass(frozen=True)
class HandScores:
    """Scores of one set of images, with 95% intervals; the reference's are matched to the evaluated set.

    found: share of images with a hand. score: MediaPipe's mean score where a hand was found.
    count_right: share of images with the right number of raised fingers among those with a hand and a known number;
    found_and_right: the same among all with a known number. count_error: mean absolute error in fingers.
    found_by_fingers, right_by_fingers: found and count_right for each number of fingers. All of it is unweighted.
    confusion: [6, 7], see `confusion_matrix`. Unweighted.
    """

    found: Interval
    score: Interval
    count_right: Interval
    found_and_right: Interval
    count_error: Interval
    images_by_fingers: dict[int, int]
    found_by_fingers: dict[int, Interval]
    right_by_fingers: dict[int, Interval]
    confusion: np.ndarray


@dataclass(frozen=True)
class EvaluationReport:
    """The evaluated set beside the reference. `report.py` turns it into JSON, a table and a contact sheet.

    found_ratio: found of the images (those with a match) over found of the matched
    reference. reference_found_unmatched: the reference's
    plain rate. kid: kernel distance of the two sets, kid_floor: of the reference's two halves, None if not asked for.
    notes: what a reader must know to trust the figures, one sentence each.
    """

    images: ScoredFolder
    reference: ScoredFolder
    image_scores: HandScores
    reference_scores: HandScores
    reference_found_unmatched: Interval
    found_ratio: Interval
    match: ReferenceMatch
    match_on: tuple[str, ...]
    kid: Interval | None
    kid_floor: Interval | None
    seed: int
    notes: tuple[str, ...]


def evaluate_hands(
    images_dir: str | os.PathLike,
    reference_dir: str | os.PathLike,
    *,
    task: str | os.PathLike | None = None,
    seed: int = 0,
    max_images: int | None = None,
    with_kid: bool = True,
    match_on: Sequence[str] = MATCHED_BY_DEFAULT,
    progress: bool = True,
) -> EvaluationReport:
    """Score the images of `images_dir` beside those of `reference_dir`.

    Args:
        task: a HandLandmarker `.task` bundle; by default `hand_landmarker_task()`.
        seed: of the bootstrap and of the choice of images where there are more than `max_images`.
        max_images: at most so many images of each folder.
        with_kid: also compute the KID of features, `KID_NAME`.
        match_on: the attributes in which reference images must agree, of fingers, view, handedness and tone.
        progress: show a progress bar on standard error.

    Raises:
        DataError: a folder that is missing, empty or has no readable image; a bad argument.
        MissingDependencyError: mediapipe or a model is missing and cannot be fetched.
    """
    check_match(match_on)
    folders = [list_images(folder, max_images, seed) for folder in (images_dir, reference_dir)]
    network = load_mobilenet() if with_kid else None
    total = sum(len(folder.entries) for folder in folders)
    with HandDetector(task) as detector, tqdm(total=total, unit="image", disable=not progress) as bar:
        images, reference = (score_folder(folder, detector, network, bar) for folder in folders)
    return compare_folders(images, reference, seed=seed, match_on=match_on)


def score_folder(
    folder: ImageFolder, detector: HandDetector, network: MobileNetV2 | None = None, bar: tqdm | None = None
) -> ScoredFolder:
    """Find the hand in each image of a folder and, with a network, compute the features.

    Unreadable images are left out and listed. Raises DataError if there is no readable one.
    """
    scored: list[ScoredImage] = []
    skipped: list[tuple[str, str]] = []

    def read_and_detect() -> Iterator[Image.Image]:
        for source in folder.entries:
            if bar is not None:
                bar.update()
            try:
                image = open_image(source.path)
            except DataError as error:
                skipped.append((source.name, str(error)))
                continue
            detection = next(iter(detector.detect(image)), None)
            counted = None if detection is None else count_fingers(detection.landmarks)
            scored.append(ScoredImage(source, image.size, detection, counted))
            yield image

    features = None
    if network is not None:
        features = extract_features(network, read_and_detect())
    else:
        for _ in read_and_detect():
            pass
    if not scored:
        name, reason = skipped[0]
        raise DataError(f"{folder.path}: none of its {len(skipped)} images can be read (first: {name}, {reason})")
    return ScoredFolder(folder, tuple(scored), tuple(skipped), features, detector.task_sha256)


def compare_folders(
    images: ScoredFolder,
    reference: ScoredFolder,
    *,
    seed: int = 0,
    match_on: Sequence[str] = MATCHED_BY_DEFAULT,
) -> EvaluationReport:
    """The report of a scored folder beside a scored reference. Raises DataError for attributes that do not exist."""
    check_match(match_on)
    match = match_reference(images.attributes, reference.attributes, match_on)
    reference_found = found_values(reference)
    comparable = np.delete(found_values(images), match.unmatched)
    notes = list(describe_match(match, match_on, images, reference))
    distance = floor = None
    if images.features is not None and reference.features is not None:
        if min(len(images.entries), len(reference.entries)) < MINIMUM_IMAGES:
            notes.append(f"{KID_NAME} was left out: it needs at least {MINIMUM_IMAGES} readable images in each folder.")
        else:
            distance = kid(images.features, reference.features, seed)
            # Rendered sets come in an order; halves must not differ by it.
            order = np.random.default_rng(seed).permutation(len(reference.entries))
            first, second = (reference.features[half] for half in np.array_split(order, 2))
            floor = kid(first, second, seed) if len(second) >= MINIMUM_IMAGES else None
    return EvaluationReport(
        images=images,
        reference=reference,
        image_scores=score_set(images, None, seed),
        reference_scores=score_set(reference, match.weights, seed),
        reference_found_unmatched=rate(reference_found, seed),
        found_ratio=rate_ratio(comparable, reference_found, match.weights, seed),
        match=match,
        match_on=tuple(match_on),
        kid=distance,
        kid_floor=floor,
        seed=seed,
        notes=tuple(notes),
    )


def score_set(scored: ScoredFolder, weights: np.ndarray | None, seed: int) -> HandScores:
    """The scores of a set; with `weights` [N] of a reference match, the overall ones are weighted."""

    def estimate(values: np.ndarray) -> Interval:
        return rate(values, seed) if weights is None else matched_rate(values, weights, seed)

    found = found_values(scored)
    scores = np.array([math.nan if row.detection is None else row.detection.score for row in scored.entries])
    expected = [row.source.attributes.fingers for row in scored.entries]
    counted = [row.counted for row in scored.entries]
    right, errors = count_scores(expected, counted)
    known = np.array([wanted is not None for wanted in expected])
    found_and_right = np.where(known, np.nan_to_num(right), np.nan)
    of_count = {number: np.array([wanted == number for wanted in expected]) for number in COUNTS}
    pairs = [(wanted, count) for wanted, count in zip(expected, counted, strict=True) if wanted is not None]
    return HandScores(
        found=estimate(found),
        score=estimate(scores),
        count_right=estimate(right),
        found_and_right=estimate(found_and_right),
        count_error=estimate(errors),
        images_by_fingers={number: int(chosen.sum()) for number, chosen in of_count.items()},
        found_by_fingers={number: rate(found[chosen], seed) for number, chosen in of_count.items()},
        right_by_fingers={number: rate(right[chosen], seed) for number, chosen in of_count.items()},
        confusion=confusion_matrix([wanted for wanted, _ in pairs], [count for _, count in pairs]),
    )


def found_values(scored: ScoredFolder) -> np.ndarray:
    """[N] of 1.0 where a hand was found and 0.0 where not."""
    return np.array([float(row.detection is not None) for row in scored.entries])


def check_match(names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in ATTRIBUTES]
    if unknown:
        raise DataError(f"cannot match on {unknown[0]!r}; known attributes are {', '.join(ATTRIBUTES)}")


def describe_match(
    match: ReferenceMatch, match_on: Sequence[str], images: ScoredFolder, reference: ScoredFolder
) -> Iterator[str]:
    """Sentences on how the reference was matched and on what was left out."""
    count = len(images.entries)
    if match.attributes:
        yield f"The reference is weighted to agree with the images in {', '.join(match.attributes)}."
        if missing := [name for name in match_on if name not in match.attributes]:
            yield f"Not matched, since not known of both sets: {', '.join(missing)}."
    else:
        yield "The reference is not matched: no attribute is known of both sets, so the rates may not be comparable."
    if match.unknown and match.attributes:
        yield f"{match.unknown} of {count} images say nothing of these; each was compared with the whole reference."
    if match.unmatched:
        yield f"{len(match.unmatched)} of {count} images have no such reference; the ratio leaves them out."
    for name, scored in (("images", images), ("reference", reference)):
        if scored.skipped:
            first = ", ".join(f"{file} ({reason})" for file, reason in scored.skipped[:3])
            more = f" and {len(scored.skipped) - 3} more" if len(scored.skipped) > 3 else ""
            yield f"{len(scored.skipped)} of the {name} could not be read and were skipped: {first}{more}."
    sizes = [Counter(row.size for row in scored.entries).most_common(1)[0][0] for scored in (images, reference)]
    if sizes[0] != sizes[1]:
        (width, height), (other_width, other_height) = sizes
        yield (
            f"Most images are {width}x{height} and most of the reference {other_width}x{other_height} pixels; "
            "rates and distances depend on the size."
        )
    if all(row.source.attributes.fingers is None for row in images.entries):
        yield "No image says how many fingers it should show, so counts are not scored."
