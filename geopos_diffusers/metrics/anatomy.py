"""Anatomy of hands from the 21 landmarks: proportions, joint angles, faults by rule, distance to a reference.

All is measured in three dimensions, as bones that point towards the camera are foreshortened in the image: on
`landmarks` (x, y in pixels and MediaPipe's depth in the same unit), on `world_landmarks` (metres), or for a rule on
both. Only the crossing of fingers is a matter of x and y alone. No images in here.
"""

import itertools

import numpy as np

from .anatomy_faults import anatomy_faults
from .hand_angles import hand_angles
from .hand_distribution import HandDistribution
from .hand_skeleton import FINGER_NAMES, KNUCKLES, check_hands, finger_bones, palm_frame, palm_thickness

__all__ = ["COMPONENTS", "HandDistribution", "anatomy_faults", "anatomy_vector"]

SMALLEST_BONE = 1e-3  # shorter bones, in palm sizes, count as this long: their logarithm stays finite
JOINTS = (("CMC", "MCP", "IP"), *(("MCP", "PIP", "DIP"),) * 4)
BONES = (("base", "metacarpal", "proximal", "distal"), *(("metacarpal", "proximal", "middle", "distal"),) * 4)
_JOINT_NAMES = [f"{finger} {joint}" for finger, joints in zip(FINGER_NAMES, JOINTS, strict=True) for joint in joints]
_NEIGHBOURS = [f"{first}-{second}" for first, second in itertools.pairwise(FINGER_NAMES[1:])]
# What each component of `anatomy_vector` is; the first LENGTHS are logarithms of lengths, the rest are angles and
# (the last one) the palm's flatness.
COMPONENTS = (
    *(f"length of {finger} {bone}" for finger, bones in zip(FINGER_NAMES, BONES, strict=True) for bone in bones),
    *(f"width {pair}" for pair in _NEIGHBOURS),
    *(f"flexion of {joint}" for joint in _JOINT_NAMES),
    *(f"deviation of {joint}" for joint in _JOINT_NAMES),
    *(f"spread {pair}" for pair in _NEIGHBOURS),
    "radial abduction of the thumb",
    "palmar abduction of the thumb",
    "flatness of the palm",
)
LENGTHS = 23


def anatomy_vector(landmarks: np.ndarray) -> np.ndarray:
    """Proportions and joint angles of hands: [..., D] float64, D = len(COMPONENTS).

    The logarithms of the 20 bones' and three knuckle distances' lengths over the palm's size; flexion and deviation of
    15 joints, spread of neighbouring fingers and abduction of the thumb in radians (`hand_angles`); how far the wrist
    and the knuckles lie out of one plane, over the palm's size. The vector is the same for a hand that is moved,
    turned, scaled or mirrored, so left and right hands can be compared.

    Args:
        landmarks: [..., 21, 3] in three dimensions and any unit, MediaPipe's image landmarks with their depth or its
            world landmarks, the same kind for all that is compared. For the distance to a reference, image landmarks
            tell faulty hands from proper ones better on rendered hands, of whose backs MediaPipe's world landmarks
            are often wrong, and about as well on photographs: docs/results/hand_anatomy.json.

    Raises:
        DataError: another shape, values that are not finite, or a palm whose landmarks are all in one place.
    """
    points = check_hands(landmarks, "landmarks")
    frame = palm_frame(points)
    angles = hand_angles(points, frame)
    batch = points.shape[:-2]
    widths = np.linalg.norm(np.diff(points[..., KNUCKLES, :], axis=-2), axis=-1)
    bones = np.linalg.norm(finger_bones(points), axis=-1).reshape(*batch, 20)
    lengths = np.concatenate([bones, widths], axis=-1) / frame.size[..., None]
    parts = [
        np.log(np.maximum(lengths, SMALLEST_BONE)),
        angles.flexion.reshape(*batch, 15),
        angles.sideways.reshape(*batch, 15),
        angles.spread,
        angles.thumb,
        palm_thickness(points)[..., None],
    ]
    return np.concatenate(parts, axis=-1)
