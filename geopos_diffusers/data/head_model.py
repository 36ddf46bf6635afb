"""A head with face actions: shape from `anny` (Apache-2.0, data CC0), eyeballs and painted brows from here.

Coordinates are the head's own: the middle between the eyes at the origin, +Z out of the face, +Y up, +X towards the
left ear (the right of the image when the head looks at the camera), in decimetres.
"""

from dataclasses import dataclass

import numpy as np

from .anny_models import import_anny, single_thread, spread_to_vertices, texture_mask
from .open_edges import RINGS, open_edge, tube_faces, tube_vertices

SHAPE_BATCH = 32  # shapes are always computed in whole batches of this size: rounding depends on the batch
_NECK_LENGTH = 3.0
_EYE_RADIUS = 0.125
_LATITUDES, _LONGITUDES = 14, 16


@dataclass(frozen=True)
class HeadRequest:
    """Body shape (`phenotype`, anny's parameters in [0, 1]) and face `actions` (weights in [0, 1]) of one head."""

    phenotype: dict[str, float]
    actions: dict[str, float]


class HeadModel:
    """The head mesh with its parts. Loading takes about a second; see anny_models for the very first time.

    `faces` [F, 3] are wound outwards. Vertices come in this order: head, neck (a tube out of the image), left and
    right eyeball; the first `head_vertices` are the head. `lip_share`, `mouth_share`, `brow_share` [V] are 0 to 1.
    `eye_angles` [E] is each eyeball vertex's angle from the direction of its gaze, in degrees.
    """

    def __init__(self) -> None:
        # Without anny's own eyes: their mesh is too coarse for an iris, and so hands and heads share one cached body.
        model = import_anny().Anny(
            rig="anny-head-noeyes-notongue",
            topology="head-noeyes-notongue",
            facial_actions="all",
            skinning_method="lbs",
        )
        self._model = model
        self.head_vertices = count = model.template_vertices.shape[0]
        head_faces = model.faces.numpy()
        self._rim = open_edge(head_faces)
        self._rest = RINGS * len(self._rim) + 2 * (_LATITUDES + 1) * _LONGITUDES
        first_eye = count + RINGS * len(self._rim)
        eye_faces, self._eye_ball, self.eye_angles = _eyeball()
        self.faces = np.concatenate(
            [
                head_faces,
                tube_faces(self._rim, count),
                eye_faces + first_eye,
                eye_faces + first_eye + len(self._eye_ball),
            ]
        ).astype(np.int32)
        self.eye_vertices = slice(first_eye, first_eye + 2 * len(self._eye_ball))
        self._cavities = [self._part(f"eye_cavity.{side}", head_faces) for side in ("L", "R")]
        self.lip_share = self._padded(spread_to_vertices(texture_mask("mpfb_lips.jpg", model), head_faces, count))
        mouth = np.zeros(count)
        mouth[self._part("mouth_cavity", head_faces)] = 1.0
        self.mouth_share = self._padded(mouth)
        vertices = self.sample_heads([HeadRequest({}, {})])[0]
        self.brow_share = self._padded(_brows(vertices[:count]))

    def _part(self, name: str, faces: np.ndarray) -> np.ndarray:
        """Vertices of one part of anny's segmentation."""
        from anny.face_segmentation import get_face_segmentation_mask

        return np.unique(faces[get_face_segmentation_mask(self._model, [name]).numpy()])

    def _padded(self, shares: np.ndarray) -> np.ndarray:
        return np.concatenate([shares, np.zeros(self._rest)])

    def sample_heads(self, requests: list[HeadRequest]) -> list[np.ndarray]:
        """Vertices [V, 3] of at most SHAPE_BATCH heads."""
        import torch

        padding = SHAPE_BATCH - len(requests)
        labels, actions = self._model.phenotype_labels, self._model.facial_action_labels
        shape = [[request.phenotype.get(name, 0.5) for name in labels] for request in requests]
        action = [[request.actions.get(name, 0.0) for name in actions] for request in requests]
        with single_thread():
            output = self._model(
                pose_parameters=None,
                phenotype_kwargs=torch.tensor(shape + padding * [[0.5] * len(labels)], dtype=torch.float32),
                facial_actions=torch.tensor(action + padding * [[0.0] * len(actions)], dtype=torch.float32),
            )
        heads = output["rest_vertices"].numpy().astype(np.float64)[: len(requests)]
        return [self._complete(head[:, [0, 2, 1]] * np.array([10.0, 10.0, -10.0])) for head in heads]

    def _complete(self, head: np.ndarray) -> np.ndarray:
        sockets = [head[part] for part in self._cavities]
        scale = abs(sockets[0][:, 0].mean() - sockets[1][:, 0].mean()) / 0.62  # an adult's eyes are 6.2 cm apart
        eyes = []
        for socket in sockets:
            # The ball sits behind the lids: its front just inside the socket's opening.
            centre = socket.mean(0)
            centre[2] = np.quantile(socket[:, 2], 0.9) - _EYE_RADIUS * scale
            eyes.append(centre + self._eye_ball * scale)
        middle = (eyes[0].mean(0) + eyes[1].mean(0)) / 2
        return np.concatenate([head, tube_vertices(head[self._rim], _NECK_LENGTH, 0.1), *eyes]) - middle


def _eyeball() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faces, vertices and angles from +Z of a sphere whose rings are closest at its front, where the iris is."""
    polar = np.rad2deg(np.pi) * np.linspace(0.0, 1.0, _LATITUDES + 1) ** 1.6
    around = 2.0 * np.pi * np.arange(_LONGITUDES) / _LONGITUDES
    radius, height = np.sin(np.deg2rad(polar)), np.cos(np.deg2rad(polar))
    vertices = np.stack(
        [radius[:, None] * np.cos(around), radius[:, None] * np.sin(around), np.tile(height[:, None], _LONGITUDES)],
        axis=-1,
    ).reshape(-1, 3)
    ring = np.arange(_LONGITUDES)
    after = np.roll(ring, -1)
    faces = []
    for near in range(0, _LATITUDES * _LONGITUDES, _LONGITUDES):
        far = near + _LONGITUDES
        faces += [
            np.stack([near + ring, far + ring, far + after], 1),
            np.stack([near + ring, far + after, near + after], 1),
        ]
    return np.concatenate(faces), _EYE_RADIUS * vertices, np.repeat(polar, _LONGITUDES)


def _brows(head: np.ndarray) -> np.ndarray:
    """How much each vertex of a neutral head belongs to an eyebrow: an arc two centimetres above each eye."""
    aside = np.abs(head[:, 0]) - 0.33
    above = head[:, 1] - (0.21 - 0.6 * np.maximum(aside, -0.05) ** 2)
    inside = np.clip(1.5 - np.abs(aside) / 0.17, 0.0, 1.0) * np.clip(1.6 - np.abs(above) / 0.04, 0.0, 1.0)
    return np.where(head[:, 2] > 0.0, inside, 0.0)
