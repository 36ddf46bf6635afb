"""Joint angles of a hand and the rotations they stand for."""

from dataclasses import dataclass

import numpy as np

from .vectors import cross, dot, rotations, unit


@dataclass(frozen=True)
class HandPose:
    """Joint angles in degrees. Zero everywhere is a flat hand with parallel fingers and the thumb beside the palm.

    `flexion` [4, 3]: index to pinky, each knuckle (MCP), middle (PIP) and end joint (DIP), positive towards the palm.
    `spread` [4]: index to pinky, sideways at the knuckle, positive away from the thumb.
    `thumb` [5]: radial abduction (away from the index in the plane of the palm), palmar abduction (out of that plane
    towards the palm side), pronation (turning the thumb's pad towards the fingers), MCP flexion, IP flexion. The first
    three count from the model's resting thumb.
    """

    flexion: np.ndarray
    spread: np.ndarray
    thumb: np.ndarray


def joint_rotations(points: np.ndarray, pose: HandPose) -> np.ndarray:
    """Rotations [5, 3, 3, 3] (finger, joint), about axes fixed in the resting hand, that bring it to `pose`.

    `points` [5, 4, 3] are the resting hand's three joints and tip of each finger, thumb first, in the hand's frame.
    """
    bones = unit(np.diff(points, axis=1))
    back = np.array([0.0, 0.0, 1.0])
    first = bones[:, 0]
    # A positive turn about its hinge takes a finger towards the palm (-Z), the thumb the way it already bends at rest.
    hinges = np.stack([-first[:, 1], first[:, 0], np.zeros(5)], axis=1)
    hinges[0] = cross(bones[0, 0], bones[0, 2])
    hinges = unit(hinges)
    # At rest the fingers are spread and bent a little: turn by the difference to what is asked.
    inner, outer = np.moveaxis(bones[:, :-1], 2, 0), np.moveaxis(bones[:, 1:], 2, 0)  # [3 axes, 5 fingers, 2 joints]
    bends = np.rad2deg(np.arctan2(dot(cross(inner, outer), hinges.T[:, :, None]), dot(inner, outer)))
    splay = np.rad2deg(np.arctan2(first[1:, 0], first[1:, 1]))
    knuckle = np.rad2deg(np.arcsin(np.clip(-first[1:, 2], -1.0, 1.0)))
    thumb_axes = np.stack([back, np.array([0.0, 1.0, 0.0]), first[0]])
    turns = rotations(
        np.concatenate([thumb_axes, np.tile(back, (4, 1)), hinges[1:], hinges, hinges]),
        np.concatenate(
            [
                pose.thumb[:3] * np.array([1.0, -1.0, 1.0]),
                splay - pose.spread,
                pose.flexion[:, 0] - knuckle,
                np.append(pose.thumb[3], pose.flexion[:, 1]) - bends[:, 0],
                np.append(pose.thumb[4], pose.flexion[:, 2]) - bends[:, 1],
            ]
        ),
    )
    base = np.concatenate([(turns[0] @ turns[1] @ turns[2])[None], turns[3:7] @ turns[7:11]])
    return np.stack([base, turns[11:16], turns[16:21]], axis=1)
