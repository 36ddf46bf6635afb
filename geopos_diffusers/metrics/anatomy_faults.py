"""Faults of a hand's anatomy by rule, from its 21 landmarks. No images in here.

A hand that breaks no rule can still be malformed: landmark networks were trained on proper hands and tend to see one.
And where the network is wrong, as for some rendered hands, a proper hand breaks a rule. Compare shares with those
of a reference. False alarms and detection rates: docs/results/hand_anatomy.json, made by
scripts/experiments/hand_anatomy/run.py.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .hand_angles import HandAngles, across_bone, dot, hand_angles
from .hand_skeleton import (
    FINGERS,
    KNUCKLES,
    WRIST,
    PalmFrame,
    check_hands,
    finger_bones,
    palm_frame,
    palm_thickness,
    unit,
)

# Flexion in degrees, bent back (negative) to bent, thumb to pinky. Ranges of motion of healthy adults by goniometer, as
# clinical tables give them (Electronic Textbook of Hand Surgery, "Normal Range of Motion"; values of the American
# Academy of Orthopaedic Surgeons), the wider where they differ: MCP -45 to 90, PIP 0 to 100, DIP 0 to 90; thumb's MCP
# -10 to 55, IP -20 to 80. At the thumb's CMC, landmarks show another angle than a goniometer: chosen. Hands at work
# stay far inside (Hume et al., Journal of Hand Surgery 15A, 1990; Bain et al., Journal of Hand Surgery 40E, 2015).
FLEXION = np.array([[-20, 50], [-10, 55], [-20, 80], *[[-45, 90], [0, 100], [0, 90]] * 4], dtype=np.float64)
# Sideways: 20 degrees at the MCP (the same tables); hinges have none.
DEVIATION = np.array([20, 20, 0, *[20, 0, 0] * 4], dtype=np.float64)
# Added for the error of the landmarks, by kind of joint, in steps of 5 degrees and at least 10: of the training hands,
# at most 0.5% of the photographs, at most 2% of the rendered ones that count with their fingers and about 2% of those
# rendered in all poses exceed it.
FLEXION_TOLERANCE = np.array([10, 10, 10, *[10, 25, 30] * 4], dtype=np.float64)
DEVIATION_TOLERANCE = np.array([10, 10, 20, *[15, 40, 40] * 4], dtype=np.float64)
TOLERANCE = np.concatenate([FLEXION_TOLERANCE, FLEXION_TOLERANCE, DEVIATION_TOLERANCE])

THICKEST_PALM = 0.12  # out of one plane, in palm sizes; MediaPipe's proper hands: 0.07, at most 0.10 for 99.5%
STRAIGHT = np.deg2rad(45.0)  # a finger none of whose joints bends more counts as straight
FACE_ON = np.cos(np.deg2rad(45.0))  # the palm or the back is seen from within 45 degrees
ORDER_SLACK = 0.1  # straight fingers may overlap by this share of the knuckles' width
THUMB_SLACK = 0.3  # the thumb's base may lie this far, in palm sizes, on the pinky's side of the palm's middle
_PAIRS = tuple(itertools.combinations(range(4), 2))


@dataclass(frozen=True)
class Reading:
    """Hands [..., 21, 3] as one of the two kinds of landmarks shows them. straight [..., 4]: index to pinky."""

    points: np.ndarray
    frame: PalmFrame
    angles: HandAngles
    straight: np.ndarray


def anatomy_faults(world_landmarks: np.ndarray, landmarks: np.ndarray) -> dict[str, np.ndarray]:
    """Which hands break a rule of anatomy: [...] bool for each rule.

    MediaPipe reads a hand in three dimensions twice: world landmarks (metres) and image landmarks with a depth. Each
    is wrong at times (the first for backs of rendered hands, the second in the depth of photographs), so a rule is
    broken only where both readings break it.

    - "joint_limits": a joint is bent further, either way or sideways, than FLEXION and DEVIATION with their tolerances.
    - "finger_order": along the line across the palm, the knuckles are not in the order index, middle, ring, pinky; or
      the middle joints of straight neighbours are not, by more than ORDER_SLACK; or the thumb grows from the pinky's
      side.
    - "crossing": in the image of a palm or a back seen face on, the first bones of two straight fingers cross, or any
      bones of two straight fingers that are not neighbours. Neighbours' further bones may (crossed fingers), bent
      fingers and the thumb lie over others in many poses, and everything crosses when seen from the side.
    - "palm": wrist and knuckles lie out of one plane by more than THICKEST_PALM of the palm's size.

    Args:
        world_landmarks: [..., 21, 3] in any unit, z along the camera's axis.
        landmarks: [..., 21, 3] of the same hands, x and y in pixels, z in the same unit.

    Raises:
        DataError: other shapes, values that are not finite, or a palm whose landmarks are all in one place.
    """
    points = check_hands(world_landmarks, "world_landmarks")
    pixels = check_hands(landmarks, "landmarks")
    if points.shape != pixels.shape:
        raise DataError(f"world_landmarks {list(points.shape)} and landmarks {list(pixels.shape)} are of other hands")
    readings = [read_hands(points), read_hands(pixels)]
    straight = readings[0].straight & readings[1].straight
    face_on = both(np.abs(reading.frame.inward[..., 2]) > FACE_ON for reading in readings)
    return {
        "joint_limits": both(joint_excess(reading.angles) > TOLERANCE for reading in readings).any(axis=-1),
        "finger_order": both(wrong_order(reading) for reading in readings).any(axis=-1),
        "crossing": face_on & crossed_fingers(pixels[..., :2], straight),
        "palm": both(palm_thickness(reading.points) > THICKEST_PALM for reading in readings),
    }


def both(answers: Iterable[np.ndarray]) -> np.ndarray:
    """Where both readings say so."""
    first, second = answers
    return first & second


def read_hands(points: np.ndarray) -> Reading:
    frame = palm_frame(points)
    angles = hand_angles(points, frame)
    return Reading(points, frame, angles, (np.abs(angles.flexion[..., 1:, :]) < STRAIGHT).all(axis=-1))


def joint_excess(angles: HandAngles) -> np.ndarray:
    """Degrees by which 15 joints are bent back, bent and turned sideways beyond their ranges: [..., 45].

    Negative inside the ranges. The order: bent back (thumb to pinky), bent, sideways.
    """
    batch = angles.flexion.shape[:-2]
    flexion = np.rad2deg(angles.flexion).reshape(*batch, 15)
    deviation = np.abs(np.rad2deg(angles.sideways)).reshape(*batch, 15)
    return np.concatenate([FLEXION[:, 0] - flexion, flexion - FLEXION[:, 1], deviation - DEVIATION], axis=-1)


def wrong_order(reading: Reading) -> np.ndarray:
    """Which neighbours are out of order: three pairs of knuckles, three of middle joints, the thumb: [..., 7] bool."""
    points, across = reading.points, reading.frame.across[..., None, :]
    knuckles = points[..., KNUCKLES, :]
    width = np.linalg.norm(knuckles[..., -1, :] - knuckles[..., 0, :], axis=-1)[..., None]
    knuckle_steps = np.diff(dot(knuckles, across), axis=-1)
    joint_steps = np.diff(dot(points[..., FINGERS[1:, 1], :], across), axis=-1)
    straight = reading.straight[..., :-1] & reading.straight[..., 1:]
    thumb = thumb_offset(points, reading.frame)[..., None] > THUMB_SLACK
    return np.concatenate([knuckle_steps <= 0, straight & (joint_steps < -ORDER_SLACK * width), thumb], axis=-1)


def thumb_offset(points: np.ndarray, frame: PalmFrame) -> np.ndarray:
    """How far the thumb's first two joints lie to the pinky's side of the palm's middle line, in palm sizes: [...]."""
    along = unit(finger_bones(points)[..., 1:, 0, :].mean(axis=-2))
    base = points[..., FINGERS[0, :2], :].mean(axis=-2) - points[..., WRIST, :]
    return dot(base, across_bone(frame.across, along)) / frame.size


def crossed_fingers(pixels: np.ndarray, straight: np.ndarray) -> np.ndarray:
    """Whether straight fingers [..., 21, 2] cross as no fingers can: [...]."""
    found = np.zeros(pixels.shape[:-2], dtype=bool)
    for first, second in _PAIRS:
        bones = 1 if second == first + 1 else 3
        for one, other in itertools.product(range(bones), repeat=2):
            start, end = FINGERS[first + 1, one : one + 2]
            other_start, other_end = FINGERS[second + 1, other : other + 2]
            crossing = segments_cross(*(pixels[..., point, :] for point in (start, end, other_start, other_end)))
            found |= crossing & straight[..., first] & straight[..., second]
    return found


def segments_cross(start: np.ndarray, end: np.ndarray, other_start: np.ndarray, other_end: np.ndarray) -> np.ndarray:
    """Whether segments [..., 2] cross in a point inside both: [...]."""

    def turn(origin: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        one, two = first - origin, second - origin
        return one[..., 0] * two[..., 1] - one[..., 1] * two[..., 0]

    apart = turn(start, end, other_start) * turn(start, end, other_end) < 0
    return apart & (turn(other_start, other_end, start) * turn(other_start, other_end, end) < 0)
