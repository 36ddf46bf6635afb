"""An articulated right hand: shape from `anny` (Apache-2.0, data CC0), joints and skinning here.

Coordinates are the hand's own: the wrist at the origin, +Y along the middle of the palm towards the fingers, +Z out of
the back of the hand, +X towards the little finger, in units of the distance from the wrist to the middle knuckle.
A left hand is this hand mirrored in X.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .anny_models import import_anny, single_thread, spread_to_vertices, texture_mask
from .hand_joints import HandPose, joint_rotations
from .open_edges import CLOSE_TO_RIM, EVEN, RINGS, open_edge, tube_faces, tube_vertices
from .rendering import face_normals, vertex_normals
from .vectors import cross

FINGERS = ("thumb", "index", "middle", "ring", "pinky")
KEYPOINT_NAMES = (
    "wrist",
    *("thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip"),
    *(f"{finger}_{joint}" for finger in FINGERS[1:] for joint in ("mcp", "pip", "dip", "tip")),
)
SHAPE_RANGES = {  # uniform ranges of anny's own parameters; ages below 0.3 are small children, whose hands differ a lot
    "gender": (0.0, 1.0),
    "age": (0.3, 1.0),
    "muscle": (0.1, 0.9),
    "weight": (0.15, 0.9),
    "height": (0.2, 0.8),
    "proportions": (0.2, 0.8),
}
LOCAL_SHAPE_RANGES = {
    "r-hand-fingers-length-incr": (-0.7, 0.7),
    "r-hand-fingers-diameter-incr": (-0.6, 0.5),
    "measure-wrist-circ-incr": (-0.4, 0.5),
}
SHAPE_BATCH = 32  # shapes are always computed in whole batches of this size: rounding depends on the batch
FOREARM_LENGTH = 3.0


@dataclass(frozen=True)
class HandShape:
    """A hand at rest: `vertices` [V, 3] and joint positions `joints` [21, 3], in the bones' order of the model."""

    vertices: np.ndarray
    joints: np.ndarray


class HandModel:
    """The hand mesh, its joints and its skin. Loading takes about a second, and two minutes the very first time.

    `faces` [F, 3] are wound so that normals point outwards, `mirrored_faces` so that they do on the mirrored hand. A
    forearm is stretched from the wrist's open edge; the vertices before `hand_vertices` are the hand without it.
    `nail_share` and `palm_share` [V] say how much each vertex is fingernail and palm side, 0 to 1. `size` is V.
    `chains` [5, 3] are the joints of each finger, thumb first, as indices into `HandShape.joints`.
    """

    def __init__(self, forearm: float = FOREARM_LENGTH) -> None:
        """With a `forearm` so long."""
        self._forearm = forearm
        model = import_anny().Anny(
            rig="anny-hand.R", topology="hand.R", local_changes=list(LOCAL_SHAPE_RANGES), skinning_method="lbs"
        )
        self._model = model
        labels = model.bone_labels
        chains = [["finger1-1.R", "finger1-2.R", "finger1-3.R"]]
        chains += [[f"finger{i}-{j}.R" for j in (1, 2, 3)] for i in range(2, 6)]
        self.chains = np.array([[labels.index(name) for name in chain] for chain in chains])
        self._wrist = labels.index("wrist.R")
        count = model.template_vertices.shape[0]
        weights = np.zeros((count, len(labels)))
        indices = model.vertex_bone_indices.numpy()
        np.add.at(weights, (np.arange(count)[:, None], indices), model.vertex_bone_weights.numpy())
        # Bones outside the five chains (root, wrist, metacarpals) do not move: one column, the palm's, for them all.
        moving = self.chains.ravel()
        self._weights = np.concatenate([1.0 - weights[:, moving].sum(1, keepdims=True), weights[:, moving]], axis=1)
        mesh_faces = model.faces.numpy()
        self._rim = open_edge(mesh_faces)
        self.faces = np.concatenate([mesh_faces, tube_faces(self._rim, count)]).astype(np.int32)
        self.mirrored_faces = np.ascontiguousarray(self.faces[:, ::-1])
        self.hand_vertices = count
        self.size = count + self._forearm_size
        mask = texture_mask("mpfb_fingernails.jpg", model)
        self.nail_share = np.concatenate([spread_to_vertices(mask, mesh_faces, count), np.zeros(self._forearm_size)])
        self.palm_share = np.concatenate([self._palm_share(mesh_faces), np.full(self._forearm_size, 0.2)])

    def sample_shapes(self, generators: list[np.random.Generator]) -> list[HandShape]:
        """One random body shape for each of at most SHAPE_BATCH generators."""
        import torch

        draws: dict[str, list[float]] = {name: [] for name in (*SHAPE_RANGES, *LOCAL_SHAPE_RANGES)}
        for generator in generators:
            for name, (low, high) in {**SHAPE_RANGES, **LOCAL_SHAPE_RANGES}.items():
                draws[name].append(generator.uniform(low, high))
        values = {
            name: torch.tensor(row + [0.5] * (SHAPE_BATCH - len(row)), dtype=torch.float32)
            for name, row in draws.items()
        }
        with single_thread():
            # The resting body alone: posing it is done here, for the joints' axes are then known.
            output = self._model.get_rest_model(
                self._model.get_phenotype_blendshape_coefficients(
                    **{name: values[name] for name in SHAPE_RANGES},
                    local_changes={name: values[name] for name in LOCAL_SHAPE_RANGES},
                )
            )
        vertices = output["rest_vertices"].numpy().astype(np.float64)
        joints = output["rest_bone_heads"].numpy().astype(np.float64)
        return [self._in_hand_frame(vertices[i], joints[i]) for i in range(len(generators))]

    def _in_hand_frame(self, vertices: np.ndarray, joints: np.ndarray) -> HandShape:
        knuckles = joints[[chain[0] for chain in self.chains]]
        wrist = joints[self._wrist]
        forward = knuckles[2:4].mean(0) - wrist
        scale = np.linalg.norm(knuckles[2] - wrist)
        forward /= np.linalg.norm(forward)
        side = knuckles[4] - knuckles[1]
        side -= forward * (side @ forward)
        side /= np.linalg.norm(side)
        frame = np.stack([side, forward, np.cross(side, forward)])
        return HandShape((vertices - wrist) @ frame.T / scale, (joints - wrist) @ frame.T / scale)

    @property
    def _forearm_size(self) -> int:
        return RINGS * len(self._rim)

    def _palm_share(self, faces: np.ndarray) -> np.ndarray:
        """How much each vertex of the hand belongs to the palm side, [V] in [0, 1], from a resting hand's normals."""
        (shape,) = self.sample_shapes([np.random.default_rng(0)])
        normals = vertex_normals(faces, face_normals(shape.vertices, faces), len(shape.vertices))
        inward = np.tile(np.array([0.0, 0.0, -1.0]), (self.hand_vertices, 1))
        bones = np.diff(shape.joints[self.chains[0]], axis=0)
        pad = cross(cross(bones[0], bones[1]), bones[1])
        on_thumb = self._weights[:, 2:4].sum(1, keepdims=True)
        inward = (1.0 - on_thumb) * inward + on_thumb * pad / np.linalg.norm(pad)
        return np.clip(0.5 + 1.6 * (normals * inward.T).sum(0), 0.0, 1.0)

    @cached_property
    def _tip_weights(self) -> np.ndarray:
        """[5, V] weights that average the skin around each fingertip."""
        (shape,) = self.sample_shapes([np.random.default_rng(0)])
        rows = []
        for finger, chain in enumerate(self.chains):
            on_bone = self._weights[:, 1 + 3 * finger + 2] > 0.9
            direction = shape.vertices[on_bone].mean(0) - shape.joints[chain[2]]
            along = (shape.vertices - shape.joints[chain[2]]) @ (direction / np.linalg.norm(direction))
            along = np.where(on_bone, along, -np.inf)
            chosen = along > along.max() - 0.07
            rows.append(chosen / chosen.sum())
        return np.stack(rows)

    def tips(self, shape: HandShape) -> np.ndarray:
        """Fingertips [5, 3] of a resting hand, thumb first."""
        return self._tip_weights @ shape.vertices

    def finger_weights(self, finger: int) -> np.ndarray:
        """How much each vertex of the hand belongs to the parts of a finger (0 is the thumb), [V, 3] in [0, 1]."""
        return self._weights[:, 1 + 3 * finger : 4 + 3 * finger]

    def finger_patch(self, finger: int, least: float) -> tuple[np.ndarray, np.ndarray]:
        """The vertices [N] that belong to a finger by at least `least`, and the faces [F, 3] among them, from 0."""
        chosen = np.flatnonzero(self.finger_weights(finger).sum(1) >= least)
        place = np.full(self.size, -1)
        place[chosen] = np.arange(len(chosen))
        faces = place[self.faces]
        return chosen, faces[(faces >= 0).all(1)]

    def pose(
        self, shape: HandShape, pose: HandPose, turns_within: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Posed vertices [V, 3] (forearm included) and keypoints [21, 3] in MediaPipe's order.

        `turns_within` [5, 3, 3, 3] are rotations of each finger's joints, made before those of the pose, about axes
        fixed in the resting hand: turns that no `HandPose` has.
        """
        points = np.concatenate([shape.joints[self.chains], self.tips(shape)[:, None]], axis=1)  # [5 fingers, 4, 3]
        turns = joint_rotations(points, pose)
        if turns_within is not None:
            turns = turns @ turns_within
        # From the knuckle outwards: each joint turns about where the resting joint is, then follows its parent.
        linear, offset = np.tile(np.eye(3), (5, 1, 1)), np.zeros((5, 3))
        transforms, posed = [], []
        for joint in range(3):
            place = points[:, joint]
            posed.append(np.einsum("fij,fj->fi", linear, place) + offset)
            step = place - np.einsum("fij,fj->fi", turns[:, joint], place)
            offset = np.einsum("fij,fj->fi", linear, step) + offset
            linear = linear @ turns[:, joint]
            transforms.append(np.concatenate([linear, offset[:, :, None]], axis=2))
        posed.append(np.einsum("fij,fj->fi", linear, points[:, 3]) + offset)
        keypoints = np.concatenate([shape.joints[self._wrist][None], np.stack(posed, axis=1).reshape(20, 3)])
        moved = np.stack(transforms, axis=1).reshape(15, 12)
        blended = (self._weights @ np.concatenate([np.eye(3, 4).reshape(1, 12), moved])).reshape(-1, 3, 4)
        vertices = np.einsum("vij,vj->vi", blended[:, :, :3], shape.vertices) + blended[:, :, 3]
        shares = EVEN if self._forearm == FOREARM_LENGTH else CLOSE_TO_RIM
        forearm = tube_vertices(vertices[self._rim], self._forearm, 0.25, shares)
        return np.concatenate([vertices, forearm]), keypoints
