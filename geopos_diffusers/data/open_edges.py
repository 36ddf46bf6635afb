"""Cut-off limbs: finds the open edge of a mesh and stretches a tube from it, out of the image."""

from itertools import pairwise

import numpy as np

RINGS = 4
EVEN = tuple(step / RINGS for step in range(1, RINGS + 1))
CLOSE_TO_RIM = (0.03, 0.1, 0.3, 1.0)  # of a long tube that bends there


def open_edge(faces: np.ndarray) -> np.ndarray:
    """Vertices around the longest open edge of `faces` [F, 3], in order, following the winding of the faces."""
    edges = {(int(a), int(b)) for face in faces for a, b in zip(face, np.roll(face, -1), strict=True)}
    follow = {a: b for a, b in edges if (b, a) not in edges}
    loops = []
    while follow:
        start, current = follow.popitem()
        loop = [start]
        while current != start:
            loop.append(current)
            current = follow.pop(current)
        loops.append(loop)
    return np.array(max(loops, key=len))


def tube_faces(rim: np.ndarray, first: int) -> np.ndarray:
    """Triangles that join the `rim` of an `open_edge` with the rings of `tube_vertices`, numbered from `first`."""
    size = len(rim)
    rings = np.concatenate([rim[None], first + np.arange(RINGS * size).reshape(RINGS, size)])
    faces = []
    for near, far in pairwise(rings):
        after_near, after_far = np.roll(near, -1), np.roll(far, -1)
        faces += [np.stack([after_near, near, far], 1), np.stack([after_near, far, after_far], 1)]
    return np.concatenate(faces)


def tube_vertices(rim: np.ndarray, length: float, growth: float, shares: tuple[float, ...] = EVEN) -> np.ndarray:
    """Rings [RINGS * R, 3] from the positions `rim` [R, 3] on along -Y, growing thicker by the share `growth`.

    They lie at these `shares` of the length.
    """
    centre = rim.mean(0)
    rings = []
    for share in shares:
        ring = centre + (rim - centre) * np.array([1.0 + growth * share, 1.0 - share, 1.0 + growth * share])
        rings.append(ring + np.array([0.0, -length * share, 0.0]))
    return np.concatenate(rings)
