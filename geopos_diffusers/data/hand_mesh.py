"""The mesh of a posed hand and ways to change it: parts of fingers resized, vertices added, flesh between fingers."""

from dataclasses import dataclass

import numpy as np

from .hand_joints import HandPose
from .hand_model import HandModel, HandShape
from .vectors import unit

Array = np.ndarray
_RING = 14  # points around the flesh between two fused fingers
_STATIONS = 12  # rings along it


@dataclass(frozen=True)
class HandMesh:
    """A posed hand. `vertices` [V, 3], `keypoints` [21, 3], `faces` [F, 3]; `skin` [V]: whose skin each vertex has.

    The first vertices are the model's own; those from `skin`'s entry HandModel.size on were added by a defect.
    """

    vertices: Array
    keypoints: Array
    faces: Array
    skin: Array


def pose_hand(model: HandModel, shape: HandShape, pose: HandPose, turns: Array | None = None) -> HandMesh:
    """The mesh of a hand in a pose."""
    vertices, keypoints = model.pose(shape, pose, turns)
    return HandMesh(vertices, keypoints, model.faces, np.arange(len(vertices)))


def resize_finger(model: HandModel, shape: HandShape, finger: int, along: Array, across: Array) -> HandShape:
    """The resting hand with the three parts of a finger scaled `along` [3] and `across` [3] their bones."""
    chain, weights = model.chains[finger], model.finger_weights(finger)
    ends = finger_ends(model, shape, finger)
    bones = np.diff(ends, axis=0)
    vertices, joints = shape.vertices.copy(), shape.joints.copy()
    place = ends[0]
    for part, (bone, joint) in enumerate(zip(bones, chain, strict=True)):
        direction = bone / np.linalg.norm(bone)
        matrix = across[part] * np.eye(3) + (along[part] - across[part]) * np.outer(direction, direction)
        offset = shape.vertices - ends[part]
        vertices += weights[:, part : part + 1] * (place + offset @ matrix.T - shape.vertices)
        joints[joint] = place
        place = place + along[part] * bone
    return HandShape(vertices, joints)


def finger_ends(model: HandModel, shape: HandShape, finger: int) -> Array:
    """[4, 3]: the three joints and the tip of a resting finger (0 is the thumb)."""
    return np.concatenate([shape.joints[model.chains[finger]], model.tips(shape)[finger][None]])


def grow_together(model: HandModel, shape: HandShape, mesh: HandMesh, fingers: tuple[int, int], end: float) -> HandMesh:
    """Flesh between two fingers: a tube whose cross-section, a rounded slab, ends in the middles of the fingers."""
    stations = np.concatenate([np.linspace(-0.1, end, _STATIONS - 3), end + np.array([0.03, 0.055, 0.06])])
    sizes = np.concatenate([np.ones(_STATIONS - 3), [0.9, 0.6, 0.05]])[:, None, None]  # a round end
    lines = [_along(mesh.keypoints[1 + 4 * finger : 5 + 4 * finger], stations) for finger in fingers]
    centre, half = (lines[0] + lines[1]) / 2, (lines[1] - lines[0]) / 2
    normal = unit(np.cross(unit(half), unit(np.gradient(centre, axis=0))))
    thickness = 0.97 * np.mean([finger_radius(model, shape, finger) for finger in fingers])
    angles = np.arange(_RING) / _RING * 2.0 * np.pi
    across, high = (np.sign(wave) * np.sqrt(np.abs(wave)) for wave in (np.cos(angles), np.sin(angles)))
    ring = half[:, None] * across[:, None] + thickness * normal[:, None] * high[:, None]
    added = (centre[:, None] + sizes * ring).reshape(-1, 3)
    here = np.arange(_STATIONS * _RING).reshape(_STATIONS, _RING)
    corners = here[:-1], np.roll(here, -1, axis=1)[:-1], np.roll(here, -1, axis=1)[1:], here[1:]
    a, b, c, d = (corner.ravel() for corner in corners)
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    own, _ = model.finger_patch(fingers[0], 0.5)
    nearest = own[((added[:, None] - mesh.vertices[own]) ** 2).sum(2).argmin(1)]
    return add_vertices(mesh, added, _outwards(added, faces, centre), nearest)


def _outwards(vertices: Array, faces: Array, centre: Array) -> Array:
    """`faces` of a tube around the points `centre`, wound so that they look away from it."""
    corners = vertices[faces[:_RING]]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    turned = (normals * (corners.mean(1) - centre[0])).sum() < 0
    return faces[:, ::-1] if turned else faces


def _along(points: Array, stations: Array) -> Array:
    """Points [S, 3] of a broken line [4, 3] at shares of its length; below 0 it goes on straight."""
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    places = np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum()
    found = np.stack([np.interp(stations, places, points[:, axis]) for axis in range(3)], axis=1)
    return found + np.minimum(stations, 0.0)[:, None] * (points[1] - points[0]) / places[1]


def finger_radius(model: HandModel, shape: HandShape, finger: int) -> float:
    """Thickness of a finger's outer part: the median distance of its skin from its bone."""
    ends = finger_ends(model, shape, finger)
    own = shape.vertices[model.finger_weights(finger)[:, 1] > 0.8] - ends[1]
    direction = unit(ends[2] - ends[1])
    return float(np.median(np.linalg.norm(own - np.outer(own @ direction, direction), axis=1)))


def add_vertices(mesh: HandMesh, vertices: Array, faces: Array, skin: Array) -> HandMesh:
    """A mesh with more `vertices` [N, 3], `faces` [F, 3] among them, counted from 0, and `skin` [N]."""
    joined = np.concatenate([mesh.faces, faces + len(mesh.vertices)]).astype(np.int32)
    return HandMesh(
        np.concatenate([mesh.vertices, vertices]), mesh.keypoints, joined, np.concatenate([mesh.skin, skin])
    )
