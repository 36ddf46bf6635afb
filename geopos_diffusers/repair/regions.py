"""The square region of a hand that a model is given, the mask within it, and pasting it back."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..boxes import Box, show_box
from ..errors import ConfigError

ROWS = 256  # blended at a time, for a bounded memory
FEATHER = 0.5  # of the margin: over so much the new pixels fade into the old ones, within the mask


@dataclass(frozen=True)
class Region:
    """A square of an image, in whole pixels. It may reach outside the image, whose edge is repeated there.

    left, top, side: of the square in the image.
    mask: (left, upper, right, lower) in the image: what is drawn anew. It lies within the square and the image.
    feather: pixels over which the new ones fade into the old ones, within the mask.
    frame: the hand's box in shares of the square.
    """

    left: int
    top: int
    side: int
    mask: tuple[int, int, int, int]
    feather: int
    frame: Box

    def masked_share(self, size: tuple[int, int]) -> float:
        """How much of what the square shows of an image, of that width and height, is masked: [0, 1]."""
        left, upper, right, lower = self.mask
        across = min(self.left + self.side, size[0]) - max(self.left, 0)
        down = min(self.top + self.side, size[1]) - max(self.top, 0)
        return (right - left) * (lower - upper) / (across * down)

    def mask_image(self, size: int) -> Image.Image:
        """The mask, white on black, mode L, at `size` pixels a side; at least a pixel is white."""
        scale = size / self.side
        left, upper, right, lower = (
            (edge - start) * scale for edge, start in zip(self.mask, (self.left, self.top) * 2, strict=True)
        )
        mask = np.zeros((size, size), dtype=np.uint8)
        mask[math.floor(upper) : math.ceil(lower), math.floor(left) : math.ceil(right)] = 255
        return Image.fromarray(mask)

    def blend(self, old: np.ndarray, drawn: Image.Image, size: tuple[int, int]) -> np.ndarray:
        """What the part of an image under the mask becomes, once the square was drawn anew.

        Args:
            old: [h, w, 3] uint8, the part as it is.
            drawn: the square as the model made it, at any size.
            size: width and height of the image.

        Returns:
            [h, w, 3] uint8. At the mask's edge the old pixels fade into the new ones, but not at the image's own edge.
        """
        left, upper, right, lower = self.mask
        square = resized(drawn.convert("RGB"), self.side)
        box = (left - self.left, upper - self.top, right - self.left, lower - self.top)
        new = np.asarray(square.crop(box))
        across = _ramp(right - left, self.feather, left > 0, right < size[0])
        down = _ramp(lower - upper, self.feather, upper > 0, lower < size[1])
        blended = np.empty_like(new)
        for start in range(0, len(new), ROWS):
            rows = slice(start, start + ROWS)
            weights = np.minimum.outer(down[rows], across)[..., None]
            before = old[rows].astype(np.float32)
            blended[rows] = (before + weights * (new[rows] - before) + 0.5).clip(0, 255).astype(np.uint8)
        return blended


def _ramp(length: int, feather: int, first: bool, last: bool) -> np.ndarray:
    rise = (np.arange(length, dtype=np.float32) + 1) / (feather + 1)
    ones = np.ones(length, dtype=np.float32)
    return np.minimum(np.minimum(rise if first else ones, rise[::-1] if last else ones), 1)


def resized(image: Image.Image, side: int) -> Image.Image:
    """A square image at `side` pixels."""
    return image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BICUBIC)


def hand_region(box: Box, size: tuple[int, int], margin: float, share: float) -> Region:
    """The region of a hand.

    Its side is the hand's longer side over `share`, but no longer than the image's shorter side if the mask fits into
    that; the square is moved into the image where it fits.

    Args:
        box: of the hand, in shares of the image.
        size: width and height of the image.
        margin: masked beyond the box on each side, as a share of its longer side.
        share: of the square's side, what the hand's longer side fills.

    Raises:
        ConfigError: the box covers no whole pixel.
    """
    corners = np.array(box).reshape(2, 2) * size
    if ((corners[1] - corners[0]) < 1).any():
        raise ConfigError(f"box {show_box(box)} covers less than a pixel of an image of {size[0]}x{size[1]}")
    longer = float((corners[1] - corners[0]).max())
    low = np.maximum(np.floor(corners[0] - margin * longer), 0).astype(int)
    high = np.minimum(np.ceil(corners[1] + margin * longer), size).astype(int)
    least = int((high - low).max())
    side = max(least, min(round(longer / share), min(size)))
    start = np.rint(corners.mean(0) - side / 2).astype(int)
    start = np.clip(start, high - side, low)  # the mask lies within
    inside = np.array(size) - side
    start = np.where(inside >= 0, np.clip(start, 0, inside), start)
    frame = np.clip((corners - start) / side, 0, 1).ravel()
    x0, y0, x1, y1 = (float(value) for value in frame)
    return Region(
        int(start[0]),
        int(start[1]),
        side,
        (int(low[0]), int(low[1]), int(high[0]), int(high[1])),
        round(FEATHER * margin * longer),
        (x0, y0, x1, y1),
    )
