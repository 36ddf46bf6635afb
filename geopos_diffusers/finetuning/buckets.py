"""Aspect-ratio buckets: sizes of about the same area, so that little is cut off an image that is no square."""

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np

LONGEST = 2.0  # of a bucket's longer side to its shorter one
STEPS_A_SIDE = 16  # SDXL's sizes are multiples of 64 at a resolution of 1024 (arXiv 2307.01952, appendix I)


def bucket_step(resolution: int, unit: int) -> int:
    """What the sides of all buckets are multiples of: about a sixteenth of the resolution, and a multiple of `unit`.

    Args:
        unit: pixels for one value of the model's coarsest feature map.
    """
    return unit * math.ceil(resolution / STEPS_A_SIDE / unit)


def bucket_sizes(resolution: int, step: int) -> list[tuple[int, int]]:
    """Heights and widths between 1:2 and 2:1, from wide to high.

    For each height the width is the largest for which the area is no larger than that of the square. The same sizes
    come out with the two sides exchanged.
    """
    area, sizes = resolution**2, set()
    for short in range(step, resolution + 1, step):
        long = area // short // step * step
        if short <= long <= LONGEST * short:
            sizes |= {(short, long), (long, short)}
    return sorted(sizes)


class Buckets:
    """Which bucket each image of a data set belongs to: the one whose aspect ratio is nearest to its own.

    sizes: of the buckets, height and width. assigned: [N] uint16, the bucket of each image.

    Args:
        shapes: widths and heights of the images, or of their parts that are to be seen.
    """

    def __init__(self, resolution: int, step: int, shapes: Iterable[tuple[float, float]]) -> None:
        self.sizes = bucket_sizes(resolution, step)
        ratios = np.log([width / height for height, width in self.sizes])
        nearest = (np.abs(ratios - math.log(width / height)).argmin() for width, height in shapes)
        self.assigned = np.fromiter(nearest, np.uint16)

    def size_of(self, index: int) -> tuple[int, int]:
        return self.sizes[self.assigned[index]]

    def members(self) -> dict[int, np.ndarray]:
        """The images [n] of each bucket that has any, in their order."""
        return {bucket: np.flatnonzero(self.assigned == bucket) for bucket in np.unique(self.assigned).tolist()}

    def counts(self) -> dict[str, int]:
        """Number of images by size, written width x height, from wide to high."""
        counted = Counter(self.assigned.tolist())
        return {"{1}x{0}".format(*self.sizes[bucket]): counted[bucket] for bucket in sorted(counted)}
