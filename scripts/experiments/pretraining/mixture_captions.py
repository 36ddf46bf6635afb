"""Captions of the mixed training data: places, and photographs of hands."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geopos_diffusers.data.captions import describe_hand, pick

PLACES = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left side", "in the centre", "on the right side"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)
_MIDDLE = (0.43, 0.57)  # of the image: a hand's box whose middle lies here is in the centre
PHOTOGRAPHED = (
    ("no fingers raised, forming a ring", "thumb and fingers forming a ring"),
    ("one finger up", "one finger raised", "1 finger up"),
    ("two fingers up", "two fingers raised", "2 fingers up"),
    ("three fingers up", "three fingers raised, thumb, index and middle finger", "3 fingers up"),
    ("four fingers up", "four fingers raised", "4 fingers up"),
    ("five fingers up", "an open hand", "5 fingers up"),
    ("the thumb touching the little finger",),
    ("the thumb touching the ring finger",),
    ("the thumb touching the middle finger",),
    ("the thumb touching the index finger",),
)


def place_of(box: Sequence[float]) -> str:
    """One of PLACES: where the middle of a box (x0, y0, x1, y1, as shares of the image) lies."""
    column, row = (int((low + high) / 2 > _MIDDLE[0]) + int((low + high) / 2 > _MIDDLE[1]) for low, high in _axes(box))
    return PLACES[row][column]


def _axes(box: Sequence[float]) -> tuple[tuple[float, float], tuple[float, float]]:
    return (box[0], box[2]), (box[1], box[3])


def describe_placed_hand(
    attributes: Mapping[str, Any], place: str, share: float, generator: np.random.Generator
) -> str:
    """A caption of a rendered hand that names its place in `share` of the cases."""
    text = describe_hand(attributes, generator)
    return f"{text}, {place}" if generator.random() < share else text


def describe_photograph(digit: int, generator: np.random.Generator) -> tuple[str, bool]:
    """A caption of a photograph of a hand that shows a digit in sign language, and whether the picture is mirrored.

    The photographs show the palms of right hands. Mirrored ones are called left hands; a caption that does not say
    which hand it is belongs to a picture as it was taken.
    """
    named, mirrored = generator.random() < 0.8, generator.random() < 0.5
    shown = pick(generator, PHOTOGRAPHED[digit])
    if not named:
        return f"a photograph of a hand, {shown}", False
    hand = "left" if mirrored else "right"
    subject = pick(generator, (f"the palm of a {hand} hand", f"a {hand} hand"))
    background = ", on a pale background" if generator.random() < 0.3 else ""
    return f"a photograph of {subject}, {shown}{background}", bool(mirrored)
