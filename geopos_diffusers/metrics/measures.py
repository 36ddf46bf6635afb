"""The measures of hands that have a value for each image. Tables, comparisons and `best/` all work on this list."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .joint_error import joint_error, relative_joint_error
from .measure_values import (
    LIKELY,
    ReferenceModel,
    anatomy_beyond,
    anatomy_distances,
    anatomy_faulty,
    box_overlap,
    count_values,
    found_and_right,
    good_hand,
    hands_asked,
    joint_ratio_values,
    judged_box_overlap,
    of_hand,
    of_image,
    of_judgement,
    same,
    to_the_pose,
    too_many_hands,
    well_formed,
)
from .records import ScoredFolder

# What it means that a measure fails a control; the controls are scripts/experiments/hand_controls.
CONTROLS = {
    "defects": "it is not shown to get worse with the share of defective hands",
    "halves": "halves of one set differ too often",
    "changes": "slight blur or JPEG improves it",
    "sizes": "it depends on the size of the image",
}


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


_ALL = (
    Measure(
        "found",
        "hand found",
        "share",
        "higher",
        "detector",
        "Images in which MediaPipe finds a hand.",
        of_image(lambda row: float(bool(row.hands))),
        fails=("changes", "sizes"),
    ),
    Measure(
        "hands_right",
        "number of hands right",
        "share",
        "higher",
        "detector",
        "Images with exactly as many hands as were asked for.",
        of_image(lambda row: same(hands_asked(row), len(row.hands))),
        fails=("changes", "sizes"),
    ),
    Measure(
        "too_many_hands",
        "more hands than asked for",
        "share",
        "lower",
        "detector",
        "Images with more hands than were asked for: a prompt for one hand that gets two.",
        of_image(too_many_hands),
        fails=("defects",),
    ),
    Measure(
        "presence",
        "presence of the hand",
        "number",
        "higher",
        "detector",
        "The landmark network's own score that a hand is there, of the most prominent hand.",
        of_hand(lambda hand: hand.presence),
        fails=("changes",),
    ),
    Measure(
        "score",
        "certainty of left or right",
        "number",
        "higher",
        "detector",
        "MediaPipe's handedness score where a hand was found; no measure of the image's quality.",
        of_hand(lambda hand: hand.score),
        fails=("defects",),
    ),
    Measure(
        "confidence",
        "confidence, 0 without a hand",
        "number",
        "higher",
        "detector",
        "The same score with 0 for an image without a hand (after Annotated Hands, arXiv 2401.15075).",
        of_image(lambda row: row.hands[0].score if row.hands else 0.0),
        fails=("changes",),
    ),
    Measure(
        "count_right",
        "fingers right, if found",
        "share",
        "higher",
        "detector",
        "Images with the right number of raised fingers, of those with a hand and a known number.",
        lambda scored, _: count_values(scored)[0],
    ),
    Measure(
        "found_and_right",
        "found and fingers right",
        "share",
        "higher",
        "detector",
        "Images with a hand and the right number of raised fingers, of all with a known number.",
        of_image(found_and_right),
        fails=("changes", "sizes"),
    ),
    Measure(
        "count_error",
        "error in fingers",
        "number",
        "lower",
        "detector",
        "Mean absolute difference of the counted and the wanted number of raised fingers, where a hand was found.",
        lambda scored, _: count_values(scored)[1],
        digits=2,
    ),
    Measure(
        "handedness_right",
        "left or right right",
        "share",
        "higher",
        "detector",
        "Images with the hand that was asked for, left or right, where a hand was found.",
        of_image(lambda row: same(row.source.attributes.handedness, row.hands[0].handedness if row.hands else None)),
    ),
    Measure(
        "anatomy_distance",
        "distance from the reference's anatomy",
        "number",
        "lower",
        "detector",
        "Mahalanobis distance of bone ratios and joint angles from the reference's hands, with shrinkage.",
        anatomy_distances,
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
        anatomy_beyond,
        fails=("defects", "sizes"),
    ),
    Measure(
        "anatomy_faults",
        "impossible anatomy",
        "share",
        "lower",
        "detector",
        "Hands that break a rule: joint limits, order or crossing of fingers, a flat palm.",
        anatomy_faulty,
        fails=("defects",),
    ),
    Measure(
        "joint_ratio_difference",
        "joint ratio difference",
        "number",
        "lower",
        "detector",
        "Mean difference of 15 ratios of neighbouring bones from the reference's (after arXiv 2401.15075).",
        joint_ratio_values,
        fails=("defects", "sizes"),
    ),
    Measure(
        "joint_error",
        "joint error, pixels",
        "number",
        "lower",
        "detector",
        "Sum of the distances of 21 joints from the given pose in pixels (HandRefiner, arXiv 2311.17957).",
        to_the_pose(joint_error),
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
        to_the_pose(relative_joint_error),
    ),
    Measure(
        "box_overlap",
        "overlap with the asked box",
        "number",
        "higher",
        "detector",
        "Intersection over union of the asked box and that of the hand found nearest, mean over the image's boxes.",
        of_image(box_overlap),
        fails=("defects",),
    ),
    Measure(
        "judge_present",
        "hand present (2nd judge)",
        "share",
        "higher",
        "network",
        "Images in which the second judge sees a hand.",
        of_judgement(lambda _, judgement: float(judgement.present > LIKELY)),
        fails=("defects",),
    ),
    Measure(
        "judge_well_formed",
        "hand well formed (2nd judge)",
        "share",
        "higher",
        "network",
        "Images whose hand the second judge takes for well formed.",
        of_judgement(well_formed),
    ),
    Measure(
        "judge_score",
        "well-formedness (2nd judge)",
        "number",
        "higher",
        "network",
        "The second judge's mean probability that the hand is well formed.",
        of_judgement(lambda _, judgement: judgement.well_formed),
    ),
    Measure(
        "judge_count_right",
        "fingers right (2nd judge)",
        "share",
        "higher",
        "network",
        "Images in which the second judge sees the number of raised fingers that was asked for.",
        of_judgement(lambda row, judgement: same(row.source.attributes.fingers, judgement.fingers)),
    ),
    Measure(
        "judge_handedness_right",
        "left or right right (2nd judge)",
        "share",
        "higher",
        "network",
        "Images in which the second judge sees the hand that was asked for, left or right.",
        of_judgement(
            lambda row, judgement: same(
                row.source.attributes.handedness, "right" if judgement.right_hand > LIKELY else "left"
            )
        ),
        fails=("defects",),
    ),
    Measure(
        "judge_box_overlap",
        "overlap with the asked box (2nd judge)",
        "number",
        "higher",
        "network",
        "Intersection over union of the one asked box and that of the hand that the second judge sees.",
        of_judgement(judged_box_overlap),
    ),
    Measure(
        "good",
        "good hand by both judges",
        "share",
        "higher",
        "both",
        "Found, as many hands and fingers as asked for, and well formed by the second judge.",
        of_image(good_hand),
        fails=("changes", "sizes"),
    ),
)
MEASURES: dict[str, Measure] = {measure.name: measure for measure in _ALL}
