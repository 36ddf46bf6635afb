"""Pictures that say where a hand's joints or its surface are, for models that draw hands under such conditions."""

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from ..errors import DataError

# One colour a finger, thumb first, far apart from each other; bones within the palm are dimmer.
FINGER_COLOURS = ((230, 60, 60), (240, 180, 40), (70, 200, 80), (60, 130, 240), (190, 80, 230))
PALM_SHARE = 0.55
_FINER = 4  # drawn so many times larger, then reduced: smooth lines
_FAR_GREY = 64  # of the hand's farthest point; the background is black


def draw_skeleton(keypoints: Sequence[Sequence[float]] | np.ndarray, size: int | tuple[int, int]) -> Image.Image:
    """A hand's bones in the colours of their fingers on black, RGB.

    Args:
        keypoints: [21, 2] in pixels of the image, in MediaPipe's order: wrist, then thumb to little finger from the
            base to the tip; they may lie outside. size: side, or width and height, of the image.

    Raises:
        DataError: other shapes, or values that are not finite.
    """
    points = np.asarray(keypoints, dtype=np.float64)
    if points.shape != (21, 2) or not np.isfinite(points).all():
        raise DataError(f"key points must be 21 finite pairs; found the shape {list(points.shape)}")
    width, height = (size, size) if isinstance(size, int) else size
    image = Image.new("RGB", (width * _FINER, height * _FINER))
    draw = ImageDraw.Draw(image)
    points = points * _FINER
    thickness = max(1.5, min(width, height) / 32) * _FINER
    for finger, colour in enumerate(FINGER_COLOURS):
        first = 1 + 4 * finger
        dim = tuple(round(PALM_SHARE * value) for value in colour)
        chain = [points[0], *points[first : first + 4]]
        for place, (start, stop) in enumerate(pairwise(chain)):
            draw.line([*start, *stop], fill=dim if place == 0 else colour, width=round(thickness))
    for finger, colour in enumerate(FINGER_COLOURS):
        for x, y in points[1 + 4 * finger : 5 + 4 * finger]:
            radius = 0.8 * thickness
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)
    return image.resize((width, height), Image.Resampling.BOX)


def draw_depth(depth: np.ndarray) -> Image.Image:
    """Depth [H, W], 0 on the background, as a grey image: the nearest point is white, the farthest dim."""
    shown = depth > 0
    grey = np.zeros(depth.shape)
    if shown.any():
        near, far = float(depth[shown].min()), float(depth[shown].max())
        grey[shown] = 255 - (255 - _FAR_GREY) * (depth[shown] - near) / max(far - near, 1e-6)
    return Image.fromarray(np.rint(grey).astype(np.uint8))


def _skeletons(hand: Any) -> Image.Image:
    known = hand.attributes.get("hands", [hand.attributes])
    return reduce(ImageChops.lighter, (draw_skeleton(each["keypoints"], hand.image.size) for each in known))


# By name; each takes a `RenderedHand`.
CONDITIONS: dict[str, Callable[[Any], Image.Image]] = {
    "skeleton": _skeletons,
    "depth": lambda hand: draw_depth(hand.depth),
}
