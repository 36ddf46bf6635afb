"""Gestures: which fingers are raised, and joint angles within human limits that show it."""

import numpy as np

from .hand_joints import HandPose

POSES = ("canonical", "any", "touching")
# thumb, index, middle, ring, pinky: the common ways to count with one hand
GESTURES: dict[int, tuple[tuple[bool, ...], ...]] = {
    0: ((False, False, False, False, False),),
    1: ((False, True, False, False, False),),
    2: ((False, True, True, False, False),),
    3: ((False, True, True, True, False), (True, True, True, False, False)),
    4: ((False, True, True, True, True),),
    5: ((True, True, True, True, True),),
}
_STRAIGHT = np.array([2.0, 5.0, 3.0])
_FOLDED = np.array([84.0, 102.0, 62.0])
_SPREAD = np.array([-9.0, -2.0, 6.0, 15.0])
_THUMB_OUT = np.array([2.0, 0.0, 0.0, 2.0, 0.0])
_THUMB_ON_FIST = np.array([-12.0, 20.0, 28.0, 58.0, 52.0])
_THUMB_ON_RING = np.array([-10.0, 20.0, 20.0, 50.0, 58.0])
_THUMB_ON_PALM = np.array([-25.0, 45.0, 40.0, 50.0, 50.0])
# Flexion of a finger, index to little finger, and the thumb, with which their tips meet: found by minimising the
# distance of the tips over four body shapes, beside the distance from a relaxed pinch.
_MEETING = np.array([[54.0, 56.0, 30.0], [57.0, 58.0, 30.0], [56.0, 57.0, 30.0], [58.0, 59.0, 30.0]])
_THUMB_MEETING = np.array(
    [
        [-10.0, 24.0, 28.0, 24.0, 22.0],
        [-10.0, 28.0, 30.0, 23.0, 21.0],
        [-13.0, 35.0, 33.0, 30.0, 24.0],
        [-16.0, 45.0, 34.0, 44.0, 22.0],
    ]
)


def sample_pose(generator: np.random.Generator, kind: str) -> tuple[tuple[bool, ...], HandPose]:
    """Which fingers are raised (thumb to pinky) and the joint angles of a random pose.

    `kind` is one of POSES. Every number from 0 to 5 is as likely in "canonical" poses. A raised finger is bent at most
    a seventh of the way; one that is not raised at least half of the way, so that counting is never in doubt. In
    "touching" poses the thumb meets the tip of one finger while the others are raised, or of all, which form a ring.
    """
    if kind == "touching":
        return _sample_touching(generator)
    curls = np.zeros(5)
    if kind == "canonical" or generator.random() < 0.35:
        options = GESTURES[int(generator.integers(6))]
        raised = options[int(generator.integers(len(options)))]
        partly = False
    else:
        raised = tuple(bool(value) for value in generator.random(5) < 0.5)
        partly = True
    for finger in range(5):
        if raised[finger]:
            curls[finger] = generator.uniform(0.0, 0.07 if not partly else 0.14)
        else:
            curls[finger] = generator.uniform(0.5, 0.95) if partly and generator.random() < 0.4 else 1.0
    flexion = _STRAIGHT + curls[1:, None] * (_FOLDED - _STRAIGHT)
    flexion += generator.normal(0.0, 1.0, (4, 3)) * np.where(curls[1:, None] > 0.5, [4.0, 4.0, 4.0], [3.0, 2.0, 2.0])
    flexion = np.clip(flexion, [-12.0, 0.0, -3.0], [92.0, 112.0, 75.0])
    openness = generator.uniform(0.35, 1.25)
    # Bent fingers close up: spread goes with straightness.
    spread = _SPREAD * (openness * (1.0 - curls[1:]) + 0.15) + generator.normal(0.0, 1.0, 4)
    if raised[1] and raised[2] and not raised[3]:
        spread[:2] += generator.uniform(0.0, 1.0) * np.array([-4.0, 5.0])
    if not (raised[1] or raised[2]):
        folded = _THUMB_ON_FIST
    else:
        folded = _THUMB_ON_PALM if raised[3] else _THUMB_ON_RING
    thumb = _THUMB_OUT + curls[0] * (folded - _THUMB_OUT)
    wobble = [3.0, 3.0, 3.0, 4.0, 5.0] if curls[0] > 0.5 else [6.0, 6.0, 6.0, 5.0, 5.0]
    thumb = thumb + generator.normal(0.0, 1.0, 5) * wobble
    return raised, HandPose(flexion=flexion, spread=spread, thumb=thumb)


def _sample_touching(generator: np.random.Generator) -> tuple[tuple[bool, ...], HandPose]:
    finger, ring = int(generator.integers(4)), generator.random() < 0.25
    flexion = _STRAIGHT + generator.uniform(0.0, 0.1, (4, 1)) * (_FOLDED - _STRAIGHT)
    spread = generator.uniform(0.3, 1.1) * _SPREAD
    if ring:
        finger, spread = 1, 0.1 * spread
        flexion[:] = _MEETING[1] + np.array([-1.0, 0.0, 1.0, 2.0])[:, None]
    else:
        flexion[finger] = _MEETING[finger]
        spread[finger] = 0.0
    flexion += generator.normal(0.0, 3.0, (4, 3))
    spread += generator.normal(0.0, 1.0, 4)
    thumb = _THUMB_MEETING[finger] + generator.normal(0.0, 3.0, 5)
    raised = (False, *(not ring and index != finger for index in range(4)))
    return raised, HandPose(np.clip(flexion, [-12.0, 0.0, -3.0], [92.0, 112.0, 75.0]), spread, thumb)
