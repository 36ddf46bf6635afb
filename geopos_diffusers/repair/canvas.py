"""An image under repair: its squares as they are seen, and pasting into it."""

import numpy as np
from PIL import Image

from ..errors import DataError
from ..images.opening import on_white
from ..metrics.hand_crops import patch
from .regions import Region


class Canvas:
    """The pixels of an image: [H, W, 3] uint8, or [H, W, 4] with an alpha channel, which never changes."""

    def __init__(self, image: Image.Image) -> None:
        """Take a copy of an image of 8 bits a channel.

        Raises:
            DataError: it has more.
        """
        if image.mode.startswith(("I", "F")):
            raise DataError("the image has more than 8 bits a channel; convert it, since models draw no more")
        self.pixels = np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def image(self) -> Image.Image:
        """RGB, or RGBA; a copy."""
        return Image.fromarray(self.pixels)

    def square(self, region: Region) -> Image.Image:
        """The square of a region, RGB; transparent parts show white."""
        return on_white(patch(self.pixels, region.left, region.top, region.side, region.side))

    def square_with(self, region: Region, part: np.ndarray) -> Image.Image:
        """The same as if `part` were pasted."""
        before = self._masked(region).copy()
        self.paste(region, part)
        square = self.square(region)
        self.paste(region, before)
        return square

    def blend(self, region: Region, drawn: Image.Image) -> np.ndarray:
        """What the part under the mask becomes, [h, w, 3] uint8, once the square was drawn anew, at any size."""
        return region.blend(self._masked(region), drawn, self.size)

    def paste(self, region: Region, part: np.ndarray) -> None:
        """Put a `part` of `blend` under the mask; nothing else changes."""
        self._masked(region)[:] = part

    def _masked(self, region: Region) -> np.ndarray:
        left, upper, right, lower = region.mask
        return self.pixels[upper:lower, left:right, :3]
