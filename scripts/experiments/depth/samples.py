"""The picture of the depth experiment: images, their depth, and what trained networks make of them."""

from collections.abc import Mapping

import numpy as np
from PIL import Image
from torch import Tensor

from geopos_diffusers.images.contact_sheet import contact_sheet

from .errors import depth_errors

MARGIN = 0.15  # of the depths that the colours show beyond the true ones
CELL = 128  # pixels


def depth_sheet(images: Tensor, depth: Tensor, predictions: Mapping[str, Tensor]) -> Image.Image:
    """A column for each image: itself, its depth, and the prediction of each network with its relative error.

    Colours go from near (yellow) to far (blue) over the depths of the column's image and 15% beyond; the background is
    grey.

    Args:
        images: [N, 3, S, S] in [-1, 1]. depth: [N, 1, S, S], 0 on the background. predictions: depth of the same shape
            by the network's name.

    Raises:
        DataError: maps of different shapes.
    """
    pixels = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    cells = [Image.fromarray(picture) for picture in pixels]
    captions = [""] * len(cells)
    for name, maps in {"depth": depth, **predictions}.items():
        cells += [color_depth(found[0].numpy(), true[0].numpy()) for found, true in zip(maps, depth, strict=True)]
        errors = depth_errors(maps, depth)["abs_rel"].tolist()
        captions += [name if maps is depth else f"{name} {error:.1%}" for error in errors]
    # 256 colours keep the file small; these have few of their own.
    return contact_sheet(cells, captions, columns=len(images), cell=CELL).quantize(256)


def color_depth(found: np.ndarray, true: np.ndarray) -> Image.Image:
    """Depth [S, S] in colours of the range of the true one [S, S], where that is above 0."""
    from matplotlib import colormaps

    known = true[true > 0]
    low, high = known.min() * (1 - MARGIN), known.max() * (1 + MARGIN)
    colors = colormaps["viridis_r"]((found - low) / (high - low))[..., :3]
    return Image.fromarray((np.where((true > 0)[..., None], colors, 0.85) * 255).astype(np.uint8))
