"""Hands that are not well formed: defects made in the joints, the resting shape or the posed mesh, before rendering.

The kinds, and what they do to the key points, which stay 21 in MediaPipe's order:

| kind | what is drawn | key points |
|---|---|---|
| fused | two neighbouring fingers grown together side by side | each finger's own |
| missing | a finger shrunk away, or cut to a stump | all of the finger's lie in what is left of it |
| extra | one finger more, beside one of the five | of the usual five |
| mirrored | index to little finger in reversed order of size | those of the finger in that place |
| bent_back | one to three fingers bent backwards or sideways at a joint | follow the bend |
| thumb_side | the thumb on the little finger's side | of the thumb where it is drawn |
| lengths | a finger, or one part of it, much too long or too short | follow the lengths |
| severed | the outer part of a finger floats apart from the rest | follow the pieces |
| melted | the whole hand bulges and sinks as soft wax does | moved as the skin around them |

A defect needs a hand that can show it: seen from the back, a finger that is gone looks like a folded one, and a sixth
beside folded ones like the fifth. `make_defect` gives None for such a hand.

`severed` and `melted` are what weak generators of images draw; the others are the defects that papers on generated
hands name (HandRefiner, arXiv 2311.17957, section 1). All sizes were chosen by looking at contact sheets.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .hand_joints import HandPose
from .hand_mesh import HandMesh, add_vertices, finger_ends, finger_radius, grow_together, pose_hand, resize_finger
from .hand_model import HandModel, HandShape
from .vectors import rotations, unit

_BACK = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Defect:
    """A hand with a defect, the same hand without it, and the fingers it concerns (0 is the thumb)."""

    mesh: HandMesh
    sound: HandMesh
    fingers: tuple[int, ...]


@dataclass(frozen=True)
class DefectRequest:
    """The well-formed hand that a defect is made in, and the generator of the defect's own random numbers.

    `view` is the side of the hand that the camera sees: palm, back or side.
    """

    model: HandModel
    shape: HandShape
    pose: HandPose
    raised: tuple[bool, ...]
    view: str
    generator: np.random.Generator

    def finger(self, first: int = 0) -> int:
        """A finger from `first` on (0 is the thumb): mostly a raised one, for on those a defect is seen."""
        raised = [finger for finger in range(first, 5) if self.raised[finger]]
        if raised and self.generator.random() < 0.9:
            return int(self.generator.choice(raised))
        return int(self.generator.integers(first, 5))

    def uniform(self, low: float, high: float) -> float:
        return float(self.generator.uniform(low, high))

    @property
    def long_fingers(self) -> int:
        """How many of index to little finger are raised."""
        return sum(self.raised[1:])

    def sound(self) -> HandMesh:
        return pose_hand(self.model, self.shape, self.pose)

    def chance(self, share: float) -> bool:
        return bool(self.generator.random() < share)


def make_defect(kind: str, request: DefectRequest) -> Defect | None:
    """A defect of the `kind`, one of DEFECTS, in the hand that is asked for; None where it could not be seen."""
    return _MAKERS[kind](request)


def _fused(request: DefectRequest) -> Defect | None:
    pairs = [(finger, finger + 1) for finger in range(1, 4) if request.raised[finger] and request.raised[finger + 1]]
    if not pairs:
        return None
    first, second = pairs[int(request.generator.integers(len(pairs)))]
    flexion, spread = request.pose.flexion.copy(), request.pose.spread.copy()
    flexion[second - 1] = flexion[first - 1]
    middle = spread[first - 1 : second].mean()
    spread[first - 1 : second] = middle + np.array([-1.0, 1.0]) * request.uniform(1.0, 5.0)
    mesh = pose_hand(request.model, request.shape, replace(request.pose, flexion=flexion, spread=spread))
    return Defect(
        grow_together(request.model, request.shape, mesh, (first, second), request.uniform(0.75, 0.93)),
        mesh,
        (first, second),
    )


def _missing(request: DefectRequest) -> Defect | None:
    finger = request.finger()
    if request.view == "palm" and request.chance(0.7):  # gone; seen from elsewhere it could be a folded finger
        along, across = np.array([request.uniform(0.1, 0.3), 0.08, 0.08]), np.array([0.95, 0.7, 0.5])
    else:  # cut behind the middle joint
        if not request.raised[finger]:
            return None
        stump = request.uniform(0.75, 1.1)
        along = np.array([1.0, stump, 0.12] if finger == 0 else [stump, 0.15, 0.12])
        across = np.array([1.0, 0.95, 0.8])
    shape = resize_finger(request.model, request.shape, finger, along, across)
    return Defect(pose_hand(request.model, shape, request.pose), request.sound(), (finger,))


def _extra(request: DefectRequest) -> Defect | None:
    """A copy of a finger in a pose of its own, mostly straight, between its place and a neighbour's or beyond."""
    finger, model, pose = request.finger(), request.model, request.pose
    if not (request.raised[0] if finger == 0 else request.long_fingers >= (3 if request.view == "palm" else 4)):
        return None
    mesh = request.sound()
    side = request.generator.choice([-1.0, 1.0])
    if finger == 0:
        thumb = np.array([request.uniform(20.0, 45.0) * side, request.uniform(-10.0, 10.0), 0.0, 5.0, 5.0])
        other, shift = replace(pose, thumb=thumb), np.array([0.0, -0.12 * side, 0.0])
    else:
        flexion, spread = pose.flexion.copy(), pose.spread.copy()
        flexion[finger - 1] = request.generator.uniform([0.0, 2.0, 0.0], [12.0, 14.0, 10.0])
        spread[finger - 1] += side * request.uniform(9.0, 20.0)
        other = replace(pose, flexion=flexion, spread=spread)
        shift = np.array([side * request.uniform(0.08, 0.16), -0.03, request.uniform(-0.04, 0.04)])
    vertices, _ = model.pose(request.shape, other)
    chosen, faces = model.finger_patch(finger, 0.15)
    return Defect(add_vertices(mesh, vertices[chosen] + shift, faces, chosen), mesh, (finger,))


def _mirrored(request: DefectRequest) -> Defect | None:
    if not _sides_shown(request):
        return None
    model, shape = request.model, request.shape
    ends = [finger_ends(model, shape, finger) for finger in range(5)]
    lengths = [np.linalg.norm(np.diff(points, axis=0), axis=1) for points in ends]
    radii = [finger_radius(model, shape, finger) for finger in range(5)]
    for finger in range(1, 5):
        other = 5 - finger
        along = (lengths[other] / lengths[finger]) ** 1.25
        shape = resize_finger(model, shape, finger, along, np.full(3, radii[other] / radii[finger]))
        weight = model.finger_weights(finger).sum(1, keepdims=True)
        step = np.array([0.0, ends[other][0, 1] - ends[finger][0, 1], 0.0])
        joints = shape.joints.copy()
        joints[model.chains[finger]] += step
        shape = HandShape(shape.vertices + weight * step, joints)
    spread = -request.pose.spread[::-1]
    mesh = pose_hand(model, shape, replace(request.pose, spread=spread))
    return Defect(mesh, request.sound(), (1, 2, 3, 4))


def _sides_shown(request: DefectRequest) -> bool:
    """Whether index and little finger can be told apart by their lengths: both are raised, and seen from the front."""
    return request.view != "side" and request.raised[1] and request.raised[4] and request.long_fingers >= 3


def _bent_back(request: DefectRequest) -> Defect | None:
    flexion, thumb = request.pose.flexion.copy(), request.pose.thumb.copy()
    turns = np.tile(np.eye(3), (5, 3, 1, 1))
    count = int(request.generator.choice([1, 1, 2, 3]))
    fingers = tuple(sorted({request.finger() for _ in range(count)}))
    joint = int(request.generator.integers(3))
    sideways, side = request.chance(0.15 if request.view == "side" else 0.75), request.generator.choice([-1.0, 1.0])
    for finger in fingers:
        if sideways:
            at = max(joint, 1)  # at the knuckle fingers do move sideways
            turns[finger, at] = rotations(_BACK[None], np.array([side * request.uniform(50.0, 95.0)]))[0]
        elif finger == 0:
            thumb[3 + joint % 2] = -request.uniform(60.0, 100.0)
        else:
            flexion[finger - 1, joint] = -request.uniform(55.0, 95.0)
    pose = replace(request.pose, flexion=flexion, thumb=thumb)
    return Defect(pose_hand(request.model, request.shape, pose, turns), request.sound(), fingers)


def _thumb_side(request: DefectRequest) -> Defect | None:
    if not (request.raised[0] and _sides_shown(request)):
        return None
    model = request.model
    whole, keypoints = model.pose(request.shape, request.pose)
    shape = resize_finger(model, request.shape, 0, np.array([0.12, 0.05, 0.05]), np.array([0.7, 0.4, 0.3]))
    mesh = pose_hand(model, shape, request.pose)
    chosen, faces = model.finger_patch(0, 0.05)
    mirror, inwards = np.array([-1.0, 1.0, 1.0]), np.array([-0.04, 0.0, 0.03])
    moved = mesh.keypoints.copy()
    moved[1:5] = keypoints[1:5] * mirror + inwards
    mesh = add_vertices(mesh, whole[chosen] * mirror + inwards, faces[:, ::-1], chosen)
    return Defect(replace(mesh, keypoints=moved), request.sound(), (0,))


def _lengths(request: DefectRequest) -> Defect | None:
    finger, along = request.finger(), np.ones(3)
    if request.chance(0.5):
        along[:] = request.uniform(1.7, 2.2) if request.chance(0.5) else request.uniform(0.35, 0.52)
    else:
        along[int(request.generator.integers(2))] = request.uniform(2.2, 3.0)
    shape = resize_finger(request.model, request.shape, finger, along, np.ones(3))
    return Defect(pose_hand(request.model, shape, request.pose), request.sound(), (finger,))


def _severed(request: DefectRequest) -> Defect | None:
    """Pinched to nothing at a cut, behind which the finger is moved on."""
    finger, model, shape = request.finger(), request.model, request.shape
    ends, weights = finger_ends(model, shape, finger), model.finger_weights(finger)
    part, share = int(request.generator.integers(2)), request.uniform(0.3, 0.8)
    bone = ends[part + 1] - ends[part]
    cut, direction = ends[part] + share * bone, unit(bone)
    own = weights.sum(1) > 0.5
    behind = (shape.vertices - cut) @ direction
    width = 0.06
    near = own & (np.abs(behind) < width)
    on_axis = cut + np.outer(behind, direction)
    pinch = np.clip(1.3 * (1.0 - (np.abs(behind) / width) ** 2), 0.0, 1.0)[:, None] * near[:, None]
    vertices = shape.vertices + pinch * (on_axis - shape.vertices)
    sideways = unit(np.cross(direction, _BACK)) * request.generator.choice([-1.0, 1.0])
    step = direction * request.uniform(0.06, 0.2) + sideways * request.uniform(0.0, 0.12)
    vertices[own & (behind > 0)] += step
    joints = shape.joints.copy()
    joints[model.chains[finger][part + 1 :]] += step
    mesh = pose_hand(model, HandShape(vertices, joints), request.pose)
    piece = np.zeros(model.size, bool)
    piece[: len(own)] = own & (behind > 0)
    count = piece[mesh.faces].sum(1)
    mesh = replace(mesh, faces=mesh.faces[(count == 0) | (count == 3)])
    return Defect(mesh, request.sound(), (finger,))


def _melted(request: DefectRequest) -> Defect | None:
    """Displacement by a sum of sine waves, none at the wrist and the arm."""
    mesh = request.sound()
    waves = request.generator.normal(0.0, 1.0, (8, 3)) * request.uniform(4.0, 7.0)
    phases = request.generator.uniform(0.0, 2.0 * np.pi, 8)
    strength = request.generator.normal(0.0, 1.0, (8, 3)) * request.uniform(0.05, 0.085)

    def move(points: np.ndarray) -> np.ndarray:
        rise = np.clip((points[:, 1] - 0.1) / 0.5, 0.0, 1.0)[:, None]
        return points + rise * (np.sin(points @ waves.T + phases) @ strength)

    moved = replace(mesh, vertices=move(mesh.vertices), keypoints=move(mesh.keypoints))
    return Defect(moved, mesh, (0, 1, 2, 3, 4))


_MAKERS: dict[str, Callable[[DefectRequest], Defect | None]] = {
    "fused": _fused,
    "missing": _missing,
    "extra": _extra,
    "mirrored": _mirrored,
    "bent_back": _bent_back,
    "thumb_side": _thumb_side,
    "lengths": _lengths,
    "severed": _severed,
    "melted": _melted,
}
DEFECTS = tuple(_MAKERS)
