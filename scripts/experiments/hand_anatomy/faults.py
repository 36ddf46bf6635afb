"""Faults put into landmarks [N, 21, 3], of which the hands' anatomy must tell. Each works in any unit."""

from collections.abc import Callable

import numpy as np

from geopos_diffusers.metrics.hand_angles import across_bone, hand_angles
from geopos_diffusers.metrics.hand_skeleton import CHAINS, FINGERS, KNUCKLES, WRIST, palm_frame, unit

STRETCH = 1.6
BENT_BACK = np.deg2rad(-60.0)


def long_bone(hands: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One bone beyond the palm (any finger, any of its three) is STRETCH times as long."""
    changed = hands.copy()
    for hand in changed:
        chain, bone = CHAINS[generator.integers(5)], generator.integers(1, 4)
        hand[chain[bone + 1 :]] += (STRETCH - 1.0) * (hand[chain[bone + 1]] - hand[chain[bone]])
    return changed


def swapped_fingers(hands: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Two of index, middle, ring and pinky have changed places, knuckles and all."""
    changed = hands.copy()
    for hand in changed:
        first, second = FINGERS[generator.choice(np.arange(1, 5), 2, replace=False)]
        hand[[*first, *second]] = hand[[*second, *first]]
    return changed


def bent_back(hands: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One finger (index to pinky) is bent back to BENT_BACK at its first or second joint."""
    changed = hands.copy()
    frame = palm_frame(hands)
    flexion = hand_angles(hands, frame).flexion
    for index, hand in enumerate(changed):
        finger, joint = generator.integers(1, 5), generator.integers(2)
        chain = CHAINS[finger]
        hinge = across_bone(frame.across[index], unit(hand[chain[joint + 1]] - hand[chain[joint]]))
        angle = frame.side[index] * (BENT_BACK - flexion[index, finger, joint])
        pivot = hand[chain[joint + 1]].copy()
        hand[chain[joint + 2 :]] = pivot + turned(hand[chain[joint + 2 :]] - pivot, hinge, angle)
    return changed


def mirrored_thumb(hands: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The thumb is on the pinky's side: mirrored in the plane through the wrist and the middle of the knuckles."""
    del generator  # nothing to choose
    changed = hands.copy()
    along = unit(hands[:, KNUCKLES].mean(axis=1) - hands[:, WRIST])
    normal = across_bone(palm_frame(hands).across, along)[:, None]
    thumb = hands[:, FINGERS[0]] - hands[:, [WRIST]]
    changed[:, FINGERS[0]] -= 2.0 * (thumb * normal).sum(axis=-1, keepdims=True) * normal
    return changed


def turned(vectors: np.ndarray, axis: np.ndarray, angle: float) -> np.ndarray:
    """Vectors [N, 3] turned about a unit axis [3] (Rodrigues' formula)."""
    along = (vectors @ axis)[:, None] * axis
    return along + np.cos(angle) * (vectors - along) + np.sin(angle) * np.cross(axis, vectors)


FAULTS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "bone 1.6 times as long": long_bone,
    "two fingers swapped": swapped_fingers,
    "finger bent back by 60 degrees": bent_back,
    "thumb on the pinky's side": mirrored_thumb,
}
