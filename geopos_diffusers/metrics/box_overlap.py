"""How far hands lie in the boxes that were asked for: intersection over union."""

from collections.abc import Sequence

import numpy as np

from ..images.hand_boxes import box_of_hand


def box_overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union [N] of boxes [N, 4], 0 to 1; either may be one box [4] or [1, 4] for all.

    Example:
        >>> float(box_overlap(np.array([0, 0, 0.5, 1]), np.array([0.25, 0, 0.75, 1])))
        0.3333333333333333
    """
    low, high = np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (first, second)]
    return common / (areas[0] + areas[1] - common)


def hands_in_boxes(
    boxes: np.ndarray, hands: Sequence[np.ndarray], size: tuple[int, int], margin: float
) -> float | None:
    """The mean over the boxes that were asked for of the largest overlap with a hand; None without hands.

    Args:
        boxes: [K, 4] as `boxes_of_row` gives them. hands: key points [21, 2 or more] of each, in pixels.
        size: width and height of the image. margin: beyond the key points, see `box_of_hand`.
    """
    if not hands:
        return None
    asked = boxes / [*size, *size] if boxes.max() > 1 else boxes
    found = [box for points in hands if (box := box_of_hand(points[:, :2], size, margin)) is not None]
    return float(np.mean([max((box_overlap(box, np.array(one)) for one in found), default=0.0) for box in asked]))
