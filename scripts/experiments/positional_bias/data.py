"""Images of Greek numerals at chosen places: the data of the paper's positional-bias experiment (claim C2).

The digest of the paper says that Greek numbers and letters are classified with and without positional bias. The grid of
places and the rule that ties a class to one of them are this project's own reading.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from geopos_diffusers.errors import ConfigError, MissingDependencyError

NUMERALS = "αβγδεϛζηθ"  # 1 to 9
COLUMNS = 3  # of the square grid that has one cell a class
CELL = 8  # pixels. Three strided layers repeat every 8 pixels, so they answer alike in all cells
FRAME = 6  # pixels around the grid where "outside" places numerals
SMALLEST_SIZE = COLUMNS * CELL + 2 * FRAME + 20  # then no numeral is cut off
PLACEMENTS = ("tied", "swapped", "everywhere", "outside")
# They come with matplotlib.
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono")
_SWAP = 4  # cells that "swapped" moves a class by: no class stays in its row and column
_FONT_SIZES = (14, 18)  # pixels
_TILT = 10  # degrees, either way
_NOISE = 0.05  # standard deviation


def place_classes(classes: Tensor, placement: str, generator: torch.Generator) -> Tensor:
    """Where the middle of each numeral goes, from its class [N]: [N, 2] row and column in pixels.

    Pixels are counted from the upper left of the grid of 3 x 3 cells of 8 pixels, of which class k owns cell k, counted
    row by row. tied: anywhere in the class's own cell. swapped: in the cell of class k + 4 (of 9). everywhere: anywhere
    in the grid. outside: in the frame of 6 pixels around it.

    Raises:
        ConfigError: an unknown placement.
    """
    if placement not in PLACEMENTS:
        raise ConfigError(f"placement must be one of {', '.join(PLACEMENTS)}; got {placement!r}")
    if placement in ("tied", "swapped"):
        cells = (classes + (_SWAP if placement == "swapped" else 0)) % len(NUMERALS)
        corners = torch.stack([cells // COLUMNS, cells % COLUMNS], dim=1) * CELL
        return corners + torch.randint(CELL, corners.shape, generator=generator)
    grid = torch.zeros((COLUMNS * CELL + 2 * FRAME,) * 2, dtype=torch.bool)
    grid[FRAME:-FRAME, FRAME:-FRAME] = True
    pixels = (grid if placement == "everywhere" else ~grid).nonzero() - FRAME
    return pixels[torch.randint(len(pixels), classes.shape, generator=generator)]


def draw_numerals(count: int, size: int, placement: str, seed: int) -> tuple[Tensor, Tensor]:
    """Images [N, 1, S, S] in about [0, 1], one numeral each on a noisy ground, and their classes [N].

    The grid of places lies in the middle of the image. Font, size and tilt vary, so the shape alone tells the class.

    Args:
        placement: one of PLACEMENTS. seed: the same seed gives the same images.

    Raises:
        ConfigError: an unknown placement, or less than 56 pixels a side.
        MissingDependencyError: matplotlib, which the fonts come with, is not installed.
    """
    if size < SMALLEST_SIZE:
        raise ConfigError(f"size must be at least {SMALLEST_SIZE}; got {size}")
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(len(NUMERALS), (count,), generator=generator)
    middles = place_classes(classes, placement, generator) + (size - COLUMNS * CELL) // 2
    shapes = torch.rand(count, 3, generator=generator)
    noise = torch.randn(count, 1, size, size, generator=generator) * _NOISE
    canvas = np.zeros((count, 1, size, size), np.uint8)
    for index, (number, (row, column)) in enumerate(zip(classes.tolist(), middles.tolist(), strict=True)):
        numeral = draw_numeral(number, *shapes[index].tolist())
        top, left = row - numeral.shape[0] // 2, column - numeral.shape[1] // 2
        canvas[index, 0, max(top, 0) : top + numeral.shape[0], max(left, 0) : left + numeral.shape[1]] = numeral[
            max(-top, 0) : size - top, max(-left, 0) : size - left
        ]
    return torch.from_numpy(canvas).float() / 255 + noise, classes


def draw_numeral(number: int, font: float, height: float, tilt: float) -> np.ndarray:
    """A numeral in the middle of a black square, [24, 24] uint8. Numbers in [0, 1) choose font, size and tilt."""
    smallest, largest = _FONT_SIZES
    picture = Image.new("L", (24, 24))
    face = load_font()(FONTS[int(font * len(FONTS))], smallest + int(height * (largest - smallest + 1)))
    draw, text = ImageDraw.Draw(picture), NUMERALS[number]
    left, top, right, bottom = draw.textbbox((0, 0), text, font=face)
    draw.text((12 - (left + right) / 2, 12 - (top + bottom) / 2), text, font=face, fill=255)
    return np.asarray(picture.rotate((2 * tilt - 1) * _TILT, Image.Resampling.BILINEAR))


@cache
def load_font() -> Callable[[str, int], ImageFont.FreeTypeFont]:
    """A function that loads each of matplotlib's fonts once a size.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingDependencyError("the fonts come with matplotlib: pip install 'geopos-diffusers[train]'") from error
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return cache(lambda name, pixels: ImageFont.truetype(str(folder / f"{name}.ttf"), pixels))
