"""A contact sheet: images in a grid, each with a caption that can be read."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from ..errors import DataError
from .fonts import Font, font_for
from .opening import on_white

DEFAULT_CELL = 192
MARGIN = 8
FONT_SIZE = 13
BACKGROUND = (255, 255, 255)
TEXT_COLOR = (24, 24, 24)


def contact_sheet(
    images: Sequence[Image.Image],
    captions: Sequence[str] | None = None,
    columns: int | None = None,
    cell: int | None = None,
) -> Image.Image:
    """Lay `images` out in a grid, row by row, with a caption below each.

    Args:
        images: at least one image, of any mode and size; transparent ones are shown on white.
        captions: one line of text per image (broken into lines that fit the cell), or None for no captions.
        columns: images in a row; by default the grid is about as wide as it is high.
        cell: side in pixels of the square that every image is fitted into, 192 by default. Smaller images are
            enlarged by the largest whole factor that fits (nearest neighbour, so that pixels stay pixels), larger ones
            are reduced (Lanczos). A row is as high as its highest image.

    Returns:
        An RGB image.

    Raises:
        DataError: no images, another number of captions than of images, `columns` below 1 or `cell` below 16.
    """
    if not images:
        raise DataError("a contact sheet needs at least one image, none was given")
    if captions is not None and len(captions) != len(images):
        raise DataError(f"{len(captions)} captions were given for {len(images)} images; give one for each")
    if columns is not None and columns < 1:
        raise DataError(f"columns is {columns}; give 1 or more")
    if cell is not None and cell < 16:
        raise DataError(f"cell is {cell} pixels; give 16 or more")
    cell = cell or DEFAULT_CELL
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    rows = math.ceil(len(images) / columns)

    fonts, texts = zip(*(font_for(caption, FONT_SIZE) for caption in captions or [""] * len(images)), strict=True)
    line_height = max(sum(font.getmetrics()) for font in fonts)
    broken = [break_lines(text, font, cell) for text, font in zip(texts, fonts, strict=True)]
    # Captions of one row are as high as its longest one, so that a single long caption costs one row only.
    row_lines = [max(len(lines) for lines in broken[row * columns : (row + 1) * columns]) for row in range(rows)]
    fitted = [fit(image, cell) for image in images]
    row_images = [max(image.height for image in fitted[row * columns : (row + 1) * columns]) for row in range(rows)]
    row_heights = [height + MARGIN + lines * line_height for height, lines in zip(row_images, row_lines, strict=True)]

    sheet = Image.new("RGB", (columns * (cell + MARGIN) + MARGIN, sum(row_heights) + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, (image, lines) in enumerate(zip(fitted, broken, strict=True)):
        row, column = divmod(index, columns)
        left = MARGIN + column * (cell + MARGIN)
        top = MARGIN + sum(row_heights[:row])
        height = row_images[row]
        sheet.paste(image, (left + (cell - image.width) // 2, top + (height - image.height) // 2))
        for number, line in enumerate(lines):
            draw.text((left, top + height + number * line_height), line, font=fonts[index], fill=TEXT_COLOR)
    return sheet


def fit(image: Image.Image, cell: int) -> Image.Image:
    """Return `image` as RGB with its longer side at most `cell`: enlarged by a whole factor, or reduced."""
    image = on_white(image)
    longer = max(image.size)
    if longer > cell:
        size = (max(1, round(image.width * cell / longer)), max(1, round(image.height * cell / longer)))
        return image.resize(size, Image.Resampling.LANCZOS)
    factor = cell // longer
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def break_lines(text: str, font: Font, width: int) -> list[str]:
    """Break `text` at spaces, and within words that are too long, into lines at most `width` pixels wide."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            if line and font.getlength(f"{line} {word}") > width:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}".strip()
            while len(line) > 1 and font.getlength(line) > width:
                end = len(line) - 1
                while end > 1 and font.getlength(line[:end]) > width:
                    end -= 1
                lines.append(line[:end])
                line = line[end:]
        lines.append(line)
    return lines
