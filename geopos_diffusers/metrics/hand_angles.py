"""Joint angles of hands from the 21 landmarks in three dimensions. No images in here."""

from dataclasses import dataclass

import numpy as np

from .hand_skeleton import FINGERS, KNUCKLES, PalmFrame, finger_bones, unit


@dataclass(frozen=True)
class HandAngles:
    """Angles of hands in radians; they do not change when a hand is moved, turned, scaled or mirrored.

    flexion [..., 5, 3]: bend of each finger's three joints, thumb first, from the palm to the tip (thumb: CMC, MCP and
        IP; fingers: MCP, PIP and DIP); positive towards the palm, for the thumb towards the pinky's knuckle.
    sideways [..., 5, 3]: deviation of the same joints out of the plane in which they bend, -90 to 90 degrees; positive
        towards the pinky, for the thumb towards the inside of the hand.
    spread [..., 3]: how far the first bones of neighbouring fingers part, index and middle first; negative where they
        come together.
    thumb [..., 2]: abduction of its metacarpal, radial (in the palm's plane, away from the fingers) and palmar (out of
        that plane, to the inside).
    """

    flexion: np.ndarray
    sideways: np.ndarray
    spread: np.ndarray
    thumb: np.ndarray


def hand_angles(points: np.ndarray, frame: PalmFrame) -> HandAngles:
    """Angles of hands [..., 21, 3] in their palms' frame.

    A joint's angle is between the bones on its two sides. The landmarks have no carpal joints: what comes before a
    finger's first joint is the line from the wrist. The hinges' directions had to be chosen: the fingers turn about the
    line across the palm, the thumb bends towards the pinky's knuckle.
    """
    bones = unit(finger_bones(points))
    inner, outer = bones[..., :-1, :], bones[..., 1:, :]  # [..., 5, 3, 3]
    side = frame.side[..., None, None, None]
    finger_inner, thumb_inner = inner[..., 1:, :, :], inner[..., :1, :, :]
    hinge = across_bone(frame.across[..., None, None, :], finger_inner)
    goal = points[..., KNUCKLES[-1], None, None, :] - points[..., FINGERS[:1, :3], :]
    thumb_bending = across_bone(goal, thumb_inner)
    hinges = np.concatenate([side * np.cross(thumb_bending, thumb_inner), hinge], axis=-3)
    bendings = np.concatenate([thumb_bending, side * np.cross(hinge, finger_inner)], axis=-3)
    lean = elevation(dot(bones[..., 1:, 1, :], frame.across[..., None, :]))
    thumb = bones[..., 0, 1, :]
    return HandAngles(
        flexion=np.arctan2(dot(outer, bendings), dot(outer, inner)),
        sideways=elevation(dot(outer, hinges)),
        spread=np.diff(lean, axis=-1),
        thumb=elevation(np.stack([-dot(thumb, frame.across), dot(thumb, frame.inward)], axis=-1)),
    )


def across_bone(vectors: np.ndarray, bones: np.ndarray) -> np.ndarray:
    """The part of `vectors` [..., 3] at right angles to the unit vectors `bones`, as unit vectors."""
    return unit(vectors - dot(vectors, bones)[..., None] * bones)


def dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Scalar products of vectors [..., 3]: [...]."""
    return (first * second).sum(axis=-1)


def elevation(sines: np.ndarray) -> np.ndarray:
    """Angles of sines that rounding may have taken beyond 1."""
    return np.arcsin(np.clip(sines, -1.0, 1.0))
