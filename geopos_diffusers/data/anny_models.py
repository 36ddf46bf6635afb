"""What hands and heads share in their use of `anny` (Apache-2.0, data CC0).

The very first model on a machine makes anny read its source files: one to two minutes, and about 0.6 GB in its cache
folder (`ANNY_CACHE_DIR`, by default `~/.cache/anny`). Every hand and head here is cut from that one cached body.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..images.opening import open_image
from ..optional_packages import optional_import


def import_anny() -> ModuleType:
    """The package anny. Raises MissingDependencyError with the extra that installs it."""
    with optional_import("rendering", "data"):
        import anny
    return anny


def texture_mask(name: str, model: Any) -> np.ndarray:
    """Value in [0, 1] of one of anny's texture masks at the middle of each face of `model`, [F]."""
    folder = Path(str(import_anny().__file__)).parent / "data" / "mpfb2" / "textures"
    image = np.asarray(open_image(folder / name).convert("L"))
    middle = model.texture_coordinates.numpy()[model.face_texture_coordinate_indices.numpy()].mean(1)
    height, width = image.shape
    column = np.clip((middle[:, 0] * width).astype(int), 0, width - 1)
    row = np.clip(((1.0 - middle[:, 1]) * height).astype(int), 0, height - 1)
    return image[row, column] / 255.0


def spread_to_vertices(values: np.ndarray, faces: np.ndarray, count: int) -> np.ndarray:
    """Mean [count] at each vertex of the `values` [F] of the faces around it."""
    corners = faces.ravel()
    total = np.bincount(corners, np.repeat(values, 3), minlength=count)
    return total / np.maximum(np.bincount(corners, minlength=count), 1)


@contextmanager
def single_thread() -> Iterator[None]:
    """Torch works with one thread inside: its rounding, and so the images' bytes, may depend on the number."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)
