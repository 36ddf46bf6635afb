"""Rendered hands and heads with their depth: the data of the small depth task of claim C6.

The digest of the paper only mentions monocular depth estimation, so the task is this project's own reading: metric
depth from one image of a camera whose lens is fixed. How far away something is can then be told from how large it looks
and, as hands differ in pose and heads in age, from what it is.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from geopos_diffusers.data.faces import FaceOptions, FaceRenderer
from geopos_diffusers.data.hands import HandOptions, HandRenderer
from geopos_diffusers.data.options import check_choices, check_count, check_image
from geopos_diffusers.errors import DataError
from geopos_diffusers.files import atomic_path

VERSION = 1  # of what a seed draws
UNITS = {"hands": "palm lengths", "heads": "decimetres"}
FOCAL = 2.5  # image sides: the image shows 23 degrees
FILL = (0.4, 0.95)  # the farthest are 2.4 times as far away as the nearest
FOREGROUND = 0.5  # share of a pixel that must be covered


def draw_depth(data: str, count: int, size: int, seed: int, progress: bool = False) -> tuple[Tensor, Tensor]:
    """Render images [N, 3, S, S], bytes, and their depth [N, 1, S, S].

    Everything but the camera varies as in `geopos data`: shape, pose, view, skin, light, background. Depth is the
    distance from the camera along its axis, in UNITS[data], on the foreground (pixels that are covered by half or
    more), and 0 elsewhere.

    Args:
        data: "hands" or "heads". seed: the same seed gives the same images.

    Raises:
        DataError: other data, a count below 1, a size outside 16 to 2048 pixels or a negative seed.
    """
    check_choices("data", (data,), tuple(UNITS))
    check_count(count)
    check_image(size, seed)
    if data == "hands":
        renderer = HandRenderer(size, seed, HandOptions(focal=FOCAL, fill=FILL))
    else:
        renderer = FaceRenderer(size, seed, FaceOptions(focal=FOCAL, fill=FILL))
    images = torch.empty(count, 3, size, size, dtype=torch.uint8)
    depth = torch.empty(count, 1, size, size)
    items = tqdm(renderer.draw(0, count), f"drawing {data}", count, unit="image", disable=not progress)
    for index, item in enumerate(items):
        images[index] = torch.from_numpy(np.asarray(item.image).copy()).permute(2, 0, 1)
        depth[index, 0] = torch.from_numpy(np.where(item.mask >= FOREGROUND, item.depth, 0.0))
    return images, depth


def load_depth(
    folder: str | Path, data: str, count: int, size: int, seed: int, progress: bool = False
) -> tuple[Tensor, Tensor]:
    """Images [N, 3, S, S] in [-1, 1] and their depth as of `draw_depth`, which are drawn once and kept in `folder`.

    Raises:
        DataError: as `draw_depth`; or the file that is there is damaged or holds something else.
    """
    path = Path(folder) / f"{data}-{count}x{size}-seed{seed}.safetensors"
    description = {"version": VERSION, "data": data, "count": count, "size": size, "seed": seed}
    metadata = {name: str(value) for name, value in description.items()}
    if not path.is_file():
        images, depth = draw_depth(data, count, size, seed, progress)
        with atomic_path(path) as temporary:
            save_file({"images": images, "depth": depth}, temporary, metadata)
    try:
        with safe_open(path, "pt") as file:
            found = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} is damaged; remove it to draw it again ({error})") from error
    shapes = {name: tuple(values.shape) for name, values in tensors.items()}
    if found != metadata or shapes != {"images": (count, 3, size, size), "depth": (count, 1, size, size)}:
        raise DataError(f"{path} holds {found} with shapes {shapes}; remove it to draw {metadata}")
    return tensors["images"].float() / 127.5 - 1, tensors["depth"]
