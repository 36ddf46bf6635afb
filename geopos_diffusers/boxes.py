"""Boxes in an image: four shares of it, (x0, y0, x1, y1), from 0 at the left and upper edge to 1 at the other two."""

import math
from collections.abc import Iterable
from typing import Any

from .errors import ConfigError

Box = tuple[float, float, float, float]
WHOLE_IMAGE: Box = (0.0, 0.0, 1.0, 1.0)


def check_box(values: Any, name: str = "box") -> Box:
    """Four numbers as a box.

    Args:
        name: what to call it in messages.

    Raises:
        ConfigError: not four finite numbers, outside the image, empty or reversed.
    """
    try:
        box = () if isinstance(values, str) else tuple(float(value) for value in values)
    except (TypeError, ValueError):
        box = ()
    shown = show_box(box) if len(box) == 4 else repr(values)[:100]
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise ConfigError(f"{name} takes four numbers x0 y0 x1 y1; got {shown}")
    if not all(0 <= value <= 1 for value in box):
        raise ConfigError(f"{name} {shown} reaches outside the image: x0 y0 x1 y1 are shares of it, from 0 to 1")
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        raise ConfigError(f"{name} {shown} is empty or reversed: x1 must be above x0, and y1 above y0")
    return x0, y0, x1, y1


def check_boxes(values: Any, name: str = "box") -> tuple[Box, ...]:
    """Four numbers, or a list of boxes, as boxes; errors as of `check_box`, and of an empty list."""
    several = isinstance(values, (list, tuple)) and values and all(isinstance(one, (list, tuple)) for one in values)
    return tuple(check_box(one, name) for one in (values if several else [values]))


def show_box(box: Iterable[float]) -> str:
    """A box for a line of text: "0.1 0.2 0.6 0.9"."""
    return " ".join(f"{value:.6g}" for value in box)


def mean_frame(boxes: Iterable[Any]) -> Box:
    """The box whose centre and size are the means of those of `boxes`: what `GeoConvConfig.default_frame` takes.

    Args:
        boxes: (x0, y0, x1, y1) each, in shares of the image.

    Returns:
        A box, rounded to six decimals.

    Raises:
        ConfigError: there are no boxes, or one is not valid.

    Example:
        >>> mean_frame([(0.0, 0.0, 0.5, 0.5), (0.5, 0.25, 1.0, 1.0)])
        (0.25, 0.125, 0.75, 0.75)
    """
    checked = [check_box(box) for box in boxes]
    if not checked:
        raise ConfigError("there are no boxes to take the mean of")
    means = [round(math.fsum(values) / len(checked), 6) for values in zip(*checked, strict=True)]
    return check_box(means, "the mean box")
