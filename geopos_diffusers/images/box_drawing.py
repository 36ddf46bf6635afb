"""Boxes drawn on an image, so that what was asked for and what came can be seen together."""

from collections.abc import Iterable

from PIL import Image, ImageDraw

from ..boxes import Box
from .contact_sheet import DEFAULT_CELL, fit

COLOUR, EDGE = (255, 90, 0), (255, 255, 255)
WIDTH = 2  # pixels of each of the two lines


def draw_boxes(image: Image.Image, boxes: Iterable[Box], cell: int = DEFAULT_CELL) -> Image.Image:
    """The image, fitted into `cell` pixels as a contact sheet fits it, with an outline of each box.

    Args:
        boxes: in shares of the image.

    Returns:
        A new RGB image. The outlines lie inside their boxes, with a light line within, to be seen on any background.
    """
    drawn = fit(image, cell)
    draw = ImageDraw.Draw(drawn)
    for x0, y0, x1, y1 in boxes:
        corners = (x0 * drawn.width, y0 * drawn.height, x1 * drawn.width - 1, y1 * drawn.height - 1)
        left, top, right, bottom = (round(value) for value in corners)
        for colour, inset in ((EDGE, WIDTH), (COLOUR, 0)):
            # A box of a few pixels is filled rather than turned inside out.
            last = max(right - inset, left + inset), max(bottom - inset, top + inset)
            draw.rectangle(((left + inset, top + inset), last), outline=colour, width=WIDTH)
    return drawn
