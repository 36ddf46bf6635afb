"""Boxes around the key points of hands, in shares of the image."""

import numpy as np

from ..boxes import Box

# What lies beyond the key points, as a share of their longer side: where boxes overlap most with those that were
# rendered. The detector's points lie farther within the hand.
MARGINS = {"keypoints": 0.04, "detected": 0.09}


def box_of_hand(points: np.ndarray, size: tuple[int, int], margin: float) -> Box | None:
    """The box around key points, in shares of the image; None where it lies outside.

    Args:
        points: [21, 2] in pixels. size: width and height of the image.
        margin: added on each side, as a share of the longer side: key points lie within the hand.
    """
    low, high = points.min(0), points.max(0)
    reach = margin * float((high - low).max())
    x0, y0 = (round(float(value), 4) for value in np.clip((low - reach) / size, 0.0, 1.0))
    x1, y1 = (round(float(value), 4) for value in np.clip((high + reach) / size, 0.0, 1.0))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
