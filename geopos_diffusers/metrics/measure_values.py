"""What the measures of hands compute: a value for each image of a scored folder, nan where it does not apply."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..images.hand_boxes import MARGINS
from .anatomy import anatomy_vector
from .anatomy_faults import anatomy_faults
from .box_overlap import hands_in_boxes
from .finger_count import count_scores
from .hand_detection import HandDetection
from .hand_distribution import MINIMUM_HANDS, HandDistribution
from .hand_judge import Judgement
from .joint_error import closest_hand
from .joint_ratio import joint_ratio_differences, mean_joint_ratios
from .records import ScoredFolder, ScoredImage

LIKELY = 0.5  # the probability from which the second judge counts as saying yes


@dataclass(frozen=True)
class ReferenceModel:
    """What measures need to know of the reference.

    distribution: of the anatomy of its hands; None where it has too few of them.
    joint_ratios: [15], the mean of its hands; None without hands.
    """

    reference: ScoredFolder
    distribution: HandDistribution | None
    joint_ratios: np.ndarray | None

    @classmethod
    def of(cls, reference: ScoredFolder) -> "ReferenceModel":
        landmarks = image_landmarks(reference)
        return cls(
            reference,
            HandDistribution.fit(anatomy_vector(landmarks)) if len(landmarks) >= MINIMUM_HANDS else None,
            mean_joint_ratios(landmarks) if len(landmarks) else None,
        )


def image_landmarks(scored: ScoredFolder) -> np.ndarray:
    """[K, 21, 3] pixels with depth, of the most prominent hand of each image with one."""
    return np.array([row.hands[0].landmarks for row in scored.entries if row.hands]).reshape(-1, 21, 3)


def world_landmarks(scored: ScoredFolder) -> np.ndarray:
    """[K, 21, 3] metres, of the same hands."""
    return np.array([row.hands[0].world_landmarks for row in scored.entries if row.hands]).reshape(-1, 21, 3)


Values = Callable[[ScoredFolder, ReferenceModel], np.ndarray]


def of_image(value: Callable[[ScoredImage], float | None]) -> Values:
    """Values of images taken one by one; None becomes nan."""
    return lambda scored, _: np.array([value(row) for row in scored.entries], dtype=np.float64)


def of_hand(value: Callable[[HandDetection], float | None]) -> Values:
    return of_image(lambda row: value(row.hands[0]) if row.hands else None)


def of_judgement(value: Callable[[ScoredImage, Judgement], float | None]) -> Values:
    return of_image(lambda row: None if row.judgement is None else value(row, row.judgement))


def _spread(scored: ScoredFolder, values: np.ndarray) -> np.ndarray:
    """[N] from values of the K images with a hand; nan for the others."""
    spread = np.full(len(scored.entries), np.nan)
    spread[[bool(row.hands) for row in scored.entries]] = values
    return spread


def same(wanted: object, given: object) -> float | None:
    """1 where they agree and 0 where not; None where one of them is not known."""
    return None if wanted is None or given is None else float(wanted == given)


def hands_asked(row: ScoredImage) -> int | None:
    return row.source.attributes.hands


def too_many_hands(row: ScoredImage) -> float | None:
    asked = hands_asked(row)
    return None if asked is None else float(len(row.hands) > asked)


def found_and_right(row: ScoredImage) -> float | None:
    wanted = row.source.attributes.fingers
    return None if wanted is None else float(row.counted == wanted)


def count_values(scored: ScoredFolder) -> tuple[np.ndarray, np.ndarray]:
    return count_scores(
        [row.source.attributes.fingers for row in scored.entries], [row.counted for row in scored.entries]
    )


def anatomy_distances(scored: ScoredFolder, model: ReferenceModel) -> np.ndarray:
    if model.distribution is None:
        return np.full(len(scored.entries), np.nan)
    if scored is model.reference:
        return _spread(scored, model.distribution.held_out)
    return _spread(scored, model.distribution.distances(anatomy_vector(image_landmarks(scored))))


def anatomy_beyond(scored: ScoredFolder, model: ReferenceModel) -> np.ndarray:
    distances = anatomy_distances(scored, model)
    if model.distribution is None:
        return distances
    return np.where(np.isnan(distances), np.nan, distances > model.distribution.limit)


def anatomy_faulty(scored: ScoredFolder, _: ReferenceModel) -> np.ndarray:
    faults = anatomy_faults(world_landmarks(scored), image_landmarks(scored))
    return _spread(scored, np.any(list(faults.values()), axis=0))


def joint_ratio_values(scored: ScoredFolder, model: ReferenceModel) -> np.ndarray:
    if model.joint_ratios is None:
        return np.full(len(scored.entries), np.nan)
    return _spread(scored, joint_ratio_differences(image_landmarks(scored), model.joint_ratios))


def to_the_pose(error: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Values:
    """The error of the hand that is nearest to the given pose, where there is one and a hand was found."""

    def value(row: ScoredImage) -> float | None:
        keypoints = row.source.keypoints
        if keypoints is None or not row.hands:
            return None
        hands = np.array([hand.landmarks for hand in row.hands])
        return float(error(hands[closest_hand(hands, keypoints)], keypoints))

    return of_image(value)


def box_overlap(row: ScoredImage) -> float | None:
    """Of the boxes that were asked for and the hands that the detector found."""
    if row.source.boxes is None:
        return None
    return hands_in_boxes(row.source.boxes, [hand.landmarks for hand in row.hands], row.size, MARGINS["detected"])


def judged_box_overlap(row: ScoredImage, judgement: Judgement) -> float | None:
    """Of the one box that was asked for and the second judge's key points, where it sees a hand."""
    boxes = row.source.boxes
    if boxes is None or len(boxes) > 1 or judgement.present <= LIKELY:
        return None
    return hands_in_boxes(boxes, [judgement.keypoints], row.size, MARGINS["keypoints"])


def well_formed(_: ScoredImage, judgement: Judgement) -> float:
    return float(judgement.well_formed > LIKELY)


def good_hand(row: ScoredImage) -> float | None:
    """Found with the right number of hands and of fingers, and well formed: by the two judges together."""
    if row.judgement is None:
        return None
    wanted, asked = row.source.attributes.fingers, hands_asked(row)
    right = bool(row.hands) and (wanted is None or row.counted == wanted) and (asked is None or len(row.hands) == asked)
    return float(right and row.judgement.present > LIKELY and row.judgement.well_formed > LIKELY)
