"""Checks that the options of rendered hands and faces share. Each raises DataError with one line."""

import os
from collections.abc import Sequence

from ..errors import DataError

MIN_SIZE, MAX_SIZE = 16, 2048


def check_choices(name: str, given: Sequence[str], allowed: Sequence[str], least: int = 1) -> None:
    """At least `least` values were given and all are among `allowed`."""
    unknown = [value for value in given if value not in allowed]
    if unknown:
        raise DataError(f"{name}: {', '.join(unknown)} given; known are {', '.join(allowed)}")
    if len(set(given)) < least:
        raise DataError(f"{name}: {', '.join(given) or 'nothing'} given; at least {least} of {', '.join(allowed)}")


def check_degrees(name: str, value: float, high: float) -> None:
    """`value` is in [0, high]."""
    if not 0.0 <= value <= high:
        raise DataError(f"{name} is {value}; it must be between 0 and {high:g} degrees")


def check_share(name: str, value: float) -> None:
    """`value` is in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise DataError(f"{name} is {value}; it must be a share between 0 and 1")


def check_drawing(fill: tuple[float, float], samples: int, focal: float | None = None) -> None:
    """The range of the subject's share of the image, the rays per pixel side, and the focal length in image sides.

    In a share below 0.4 the end of the arm or neck could come into the image. A shorter focal length could bring the
    camera into the arm.
    """
    if not 0.4 <= fill[0] <= fill[1] <= 1.0:
        raise DataError(f"fill is {fill}; it must be two shares in order, each between 0.4 and 1")
    if samples not in (1, 2, 3, 4):
        raise DataError(f"samples is {samples}; it must be 1, 2, 3 or 4 rays per pixel side")
    if focal is not None and not 2.0 <= focal <= 20.0:
        raise DataError(f"focal is {focal}; it must be between 2 and 20 image sides, or not given")


def check_image(size: int, seed: int) -> None:
    """Pixels a side, and the seed."""
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise DataError(f"size is {size}; it must be between {MIN_SIZE} and {MAX_SIZE} pixels")
    if seed < 0:
        raise DataError(f"seed is {seed}; it must not be negative")


def check_count(count: int, start: int = 0) -> None:
    """How many images, and the index of the first."""
    if count < 1 or start < 0:
        raise DataError(f"count is {count} from index {start}; at least one image from index 0 on can be drawn")


def check_cores(workers: int) -> None:
    """Number of worker processes."""
    if not 1 <= workers <= 16 * (os.cpu_count() or 1):
        raise DataError(f"workers is {workers}; it must be between 1 and {16 * (os.cpu_count() or 1)} on this machine")
