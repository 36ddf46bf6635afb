"""The measures of hands that have a value for each image. Tables, comparisons and `best/` all work on this list."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .anatomy import anatomy_vector
from .anatomy_faults import anatomy_faults
from .finger_count import count_scores
from .hand_detection import HandDetection
from .hand_distribution import MINIMUM_HANDS, HandDistribution
from .hand_judge import Judgement
from .joint_error import closest_hand, joint_error, relative_joint_error
from .joint_ratio import joint_ratio_differences, mean_joint_ratios
from .records import ScoredFolder, ScoredImage

# What it means that a measure fails a control; the controls are scripts/experiments/hand_controls.
CONTROLS = {
    "defects": "it is not shown to get worse with the share of defective hands",
    "halves": "halves of one set differ too often",
    "changes": "slight blur or JPEG improves it",
    "sizes": "it depends on the size of the image",
}
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


@dataclass(frozen=True)
class Measure:
    """A measure with one value for each image.

    name: in files and options. title: in tables. kind: "share" of images (values 0 and 1) or "number".
    better: "higher" or "lower". judge: whose opinion it is: the "detector"'s, the second judge's "network", or "both".
    description: one sentence, with the source. digits: after the point, in tables.
    values: [N] float64 of a scored folder, nan where the measure does not apply.
    fails: the controls that the measure does not pass, names out of CONTROLS; a test holds them to the results,
    docs/results/hand_controls.md.
    """

    name: str
    title: str
    kind: Literal["share", "number"]
    better: Literal["higher", "lower"]
    judge: Literal["detector", "network", "both"]
    description: str
    values: Callable[[ScoredFolder, ReferenceModel], np.ndarray]
    digits: int = 3
    fails: tuple[str, ...] = ()

    @property
    def warning(self) -> str | None:
        """What a reader must know of a measure that fails a control; None of one that passes them all."""
        return "; ".join(CONTROLS[name] for name in self.fails) or None


def image_landmarks(scored: ScoredFolder) -> np.ndarray:
    """[K, 21, 3] pixels with depth, of the most prominent hand of each image with one."""
    return np.array([row.hands[0].landmarks for row in scored.entries if row.hands]).reshape(-1, 21, 3)


def world_landmarks(scored: ScoredFolder) -> np.ndarray:
    """[K, 21, 3] metres, of the same hands."""
    return np.array([row.hands[0].world_landmarks for row in scored.entries if row.hands]).reshape(-1, 21, 3)


Values = Callable[[ScoredFolder, ReferenceModel], np.ndarray]


def _each(value: Callable[[ScoredImage], float | None]) -> Values:
    """Values of images taken one by one; None becomes nan."""
    return lambda scored, _: np.array([value(row) for row in scored.entries], dtype=np.float64)


def _of_hand(value: Callable[[HandDetection], float | None]) -> Values:
    return _each(lambda row: value(row.hands[0]) if row.hands else None)


def _of_judgement(value: Callable[[ScoredImage, Judgement], float | None]) -> Values:
    return _each(lambda row: None if row.judgement is None else value(row, row.judgement))


def _spread(scored: ScoredFolder, values: np.ndarray) -> np.ndarray:
    """[N] from values of the K images with a hand; nan for the others."""
    spread = np.full(len(scored.entries), np.nan)
    spread[[bool(row.hands) for row in scored.entries]] = values
    return spread


def _same(wanted: object, given: object) -> float | None:
    """1 where they agree and 0 where not; None where one of them is not known."""
    return None if wanted is None or given is None else float(wanted == given)


def _hands_asked(row: ScoredImage) -> int | None:
    return row.source.attributes.hands


def _too_many(row: ScoredImage) -> float | None:
    asked = _hands_asked(row)
    return None if asked is None else float(len(row.hands) > asked)


def _found_and_right(row: ScoredImage) -> float | None:
    wanted = row.source.attributes.fingers
    return None if wanted is None else float(row.counted == wanted)


def _counts(scored: ScoredFolder) -> tuple[np.ndarray, np.ndarray]:
    return count_scores(
        [row.source.attributes.fingers for row in scored.entries], [row.counted for row in scored.entries]
    )


def _distances(scored: ScoredFolder, model: ReferenceModel) -> np.ndarray:
    if model.distribution is None:
        return np.full(len(scored.entries), np.nan)
    if scored is model.reference:
        return _spread(scored, model.distribution.held_out)
    return _spread(scored, model.distribution.distances(anatomy_vector(image_landmarks(scored))))


def _beyond(scored: ScoredFolder, model: ReferenceModel) -> np.ndarray:
    distances = _distances(scored, model)
    if model.distribution is None:
        return distances
    return np.where(np.isnan(distances), np.nan, distances > model.distribution.limit)


def _faults(scored: ScoredFolder, _: ReferenceModel) -> np.ndarray:
    faults = anatomy_faults(world_landmarks(scored), image_landmarks(scored))
    return _spread(scored, np.any(list(faults.values()), axis=0))


def _ratio_difference(scored: ScoredFolder, model: ReferenceModel) -> np.ndarray:
    if model.joint_ratios is None:
        return np.full(len(scored.entries), np.nan)
    return _spread(scored, joint_ratio_differences(image_landmarks(scored), model.joint_ratios))


def _to_the_pose(error: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Values:
    """The error of the hand that is nearest to the given pose, where there is one and a hand was found."""

    def value(row: ScoredImage) -> float | None:
        keypoints = row.source.keypoints
        if keypoints is None or not row.hands:
            return None
        hands = np.array([hand.landmarks for hand in row.hands])
        return float(error(hands[closest_hand(hands, keypoints)], keypoints))

    return _each(value)


def _well_formed(_: ScoredImage, judgement: Judgement) -> float:
    return float(judgement.well_formed > LIKELY)


def _good(row: ScoredImage) -> float | None:
    """Found with the right number of hands and of fingers, and well formed: by the two judges together."""
    if row.judgement is None:
        return None
    wanted, asked = row.source.attributes.fingers, _hands_asked(row)
    right = bool(row.hands) and (wanted is None or row.counted == wanted) and (asked is None or len(row.hands) == asked)
    return float(right and row.judgement.present > LIKELY and row.judgement.well_formed > LIKELY)


_ALL = (
    Measure(
        "found",
        "hand found",
        "share",
        "higher",
        "detector",
        "Images in which MediaPipe finds a hand.",
        _each(lambda row: float(bool(row.hands))),
        fails=("changes", "sizes"),
    ),
    Measure(
        "hands_right",
        "number of hands right",
        "share",
        "higher",
        "detector",
        "Images with exactly as many hands as were asked for.",
        _each(lambda row: _same(_hands_asked(row), len(row.hands))),
        fails=("changes", "sizes"),
    ),
    Measure(
        "too_many_hands",
        "more hands than asked for",
        "share",
        "lower",
        "detector",
        "Images with more hands than were asked for: a prompt for one hand that gets two.",
        _each(_too_many),
        fails=("defects",),
    ),
    Measure(
        "presence",
        "presence of the hand",
        "number",
        "higher",
        "detector",
        "The landmark network's own score that a hand is there, of the most prominent hand.",
        _of_hand(lambda hand: hand.presence),
        fails=("changes",),
    ),
    Measure(
        "score",
        "certainty of left or right",
        "number",
        "higher",
        "detector",
        "MediaPipe's handedness score where a hand was found; no measure of the image's quality.",
        _of_hand(lambda hand: hand.score),
        fails=("defects",),
    ),
    Measure(
        "confidence",
        "confidence, 0 without a hand",
        "number",
        "higher",
        "detector",
        "The same score with 0 for an image without a hand (after Annotated Hands, arXiv 2401.15075).",
        _each(lambda row: row.hands[0].score if row.hands else 0.0),
        fails=("changes",),
    ),
    Measure(
        "count_right",
        "fingers right, if found",
        "share",
        "higher",
        "detector",
        "Images with the right number of raised fingers, of those with a hand and a known number.",
        lambda scored, _: _counts(scored)[0],
    ),
    Measure(
        "found_and_right",
        "found and fingers right",
        "share",
        "higher",
        "detector",
        "Images with a hand and the right number of raised fingers, of all with a known number.",
        _each(_found_and_right),
        fails=("changes", "sizes"),
    ),
    Measure(
        "count_error",
        "error in fingers",
        "number",
        "lower",
        "detector",
        "Mean absolute difference of the counted and the wanted number of raised fingers, where a hand was found.",
        lambda scored, _: _counts(scored)[1],
        digits=2,
    ),
    Measure(
        "handedness_right",
        "left or right right",
        "share",
        "higher",
        "detector",
        "Images with the hand that was asked for, left or right, where a hand was found.",
        _each(lambda row: _same(row.source.attributes.handedness, row.hands[0].handedness if row.hands else None)),
    ),
    Measure(
        "anatomy_distance",
        "distance from the reference's anatomy",
        "number",
        "lower",
        "detector",
        "Mahalanobis distance of bone ratios and joint angles from the reference's hands, with shrinkage.",
        _distances,
        digits=2,
        fails=("sizes",),
    ),
    Measure(
        "anatomy_beyond",
        "anatomy beyond the reference's 95%",
        "share",
        "lower",
        "detector",
        "Hands whose anatomy is farther away than 95% of the reference's own, held out.",
        _beyond,
        fails=("defects", "sizes"),
    ),
    Measure(
        "anatomy_faults",
        "impossible anatomy",
        "share",
        "lower",
        "detector",
        "Hands that break a rule: joint limits, order or crossing of fingers, a flat palm.",
        _faults,
        fails=("defects",),
    ),
    Measure(
        "joint_ratio_difference",
        "joint ratio difference",
        "number",
        "lower",
        "detector",
        "Mean difference of 15 ratios of neighbouring bones from the reference's (after arXiv 2401.15075).",
        _ratio_difference,
        fails=("defects", "sizes"),
    ),
    Measure(
        "joint_error",
        "joint error, pixels",
        "number",
        "lower",
        "detector",
        "Sum of the distances of 21 joints from the given pose in pixels (HandRefiner, arXiv 2311.17957).",
        _to_the_pose(joint_error),
        digits=1,
        fails=("sizes",),
    ),
    Measure(
        "relative_joint_error",
        "joint error, share of hand size",
        "number",
        "lower",
        "detector",
        "Mean distance of a joint from the given pose by the hand's size, which does not depend on the image's.",
        _to_the_pose(relative_joint_error),
    ),
    Measure(
        "judge_present",
        "hand present (2nd judge)",
        "share",
        "higher",
        "network",
        "Images in which the second judge sees a hand.",
        _of_judgement(lambda _, judgement: float(judgement.present > LIKELY)),
        fails=("defects",),
    ),
    Measure(
        "judge_well_formed",
        "hand well formed (2nd judge)",
        "share",
        "higher",
        "network",
        "Images whose hand the second judge takes for well formed.",
        _of_judgement(_well_formed),
    ),
    Measure(
        "judge_score",
        "well-formedness (2nd judge)",
        "number",
        "higher",
        "network",
        "The second judge's mean probability that the hand is well formed.",
        _of_judgement(lambda _, judgement: judgement.well_formed),
    ),
    Measure(
        "judge_count_right",
        "fingers right (2nd judge)",
        "share",
        "higher",
        "network",
        "Images in which the second judge sees the number of raised fingers that was asked for.",
        _of_judgement(lambda row, judgement: _same(row.source.attributes.fingers, judgement.fingers)),
    ),
    Measure(
        "judge_handedness_right",
        "left or right right (2nd judge)",
        "share",
        "higher",
        "network",
        "Images in which the second judge sees the hand that was asked for, left or right.",
        _of_judgement(
            lambda row, judgement: _same(
                row.source.attributes.handedness, "right" if judgement.right_hand > LIKELY else "left"
            )
        ),
        fails=("defects",),
    ),
    Measure(
        "good",
        "good hand by both judges",
        "share",
        "higher",
        "both",
        "Found, as many hands and fingers as asked for, and well formed by the second judge.",
        _each(_good),
        fails=("changes", "sizes"),
    ),
)
MEASURES: dict[str, Measure] = {measure.name: measure for measure in _ALL}
