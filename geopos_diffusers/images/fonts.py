"""A font for any text: the installed one that has the most of its characters; the others are written as escapes."""

import logging
import os
import unicodedata
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

from ..optional_packages import is_installed

logger = logging.getLogger(__name__)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
FONT_VARIABLE = "GEOPOS_FONT"  # environment: a font file to try first
SYSTEM_FOLDERS = (
    "~/.local/share/fonts",
    "~/.fonts",
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/Library/Fonts",
    "/Library/Fonts",
    "/System/Library/Fonts",
    r"C:\Windows\Fonts",
)
FONT_SUFFIXES = (".ttf", ".otf", ".ttc")
# Cuts of a family that are no plain text, and a font that has a placeholder for everything.
UNWANTED = ("bold", "italic", "oblique", "mono", "condensed", "thin", "light", "black", "lastresort", "emoji", "serif")
NO_CHARACTER = "\U0010ffff"  # a code point that no font has: shown by the font's sign for a missing character


def font_for(text: str, size: int) -> tuple[Font, str]:
    """The font to write a text in, and the text as that font can show it.

    Fonts are looked for in this order: Pillow's own, the file that the environment variable GEOPOS_FONT names,
    matplotlib's if it is installed, the system's. Characters that the best of them lacks become escapes such as
    `\\u624b`, with a warning once.

    Args:
        size: in pixels.
    """
    font = ImageFont.load_default(size)
    if not (lacking := missing_characters(text, font)):
        return font, text
    for path in font_files():
        try:
            candidate = ImageFont.truetype(path, size)
            lacks = missing_characters(text, candidate)
        except (OSError, ValueError):  # a font of a kind that FreeType does not read
            continue
        if len(lacks) < len(lacking):
            font, lacking = candidate, lacks
        if not lacking:
            return font, text
    _warn_once("".join(sorted(lacking)))
    return font, "".join(char.encode("unicode_escape").decode() if char in lacking else char for char in text)


def missing_characters(text: str, font: Font) -> set[str]:
    """The characters of `text` for which `font` has no glyph."""
    if not isinstance(font, ImageFont.FreeTypeFont):  # Pillow's bitmap font, where it is built without FreeType
        return {char for char in text if ord(char) > 255}
    # Spaces and invisible marks have no glyph of their own to look at.
    shown = {char for char in text if unicodedata.category(char)[0] not in "ZC"}
    return {char for char in shown if _glyph(font, char) in (_glyph(font, NO_CHARACTER), _glyph(font, ""))}


def _glyph(font: ImageFont.FreeTypeFont, char: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(char)
    return mask.size, bytes(mask)


@lru_cache(maxsize=1)
def font_files() -> tuple[str, ...]:
    """The files to look for a font in, best first."""
    first = [os.environ[FONT_VARIABLE]] if os.environ.get(FONT_VARIABLE) else []
    if is_installed("matplotlib"):
        from matplotlib import get_data_path

        first.append(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"))
    found = []
    for folder in SYSTEM_FOLDERS:
        files = sorted(path for path in Path(folder).expanduser().rglob("*") if path.suffix.lower() in FONT_SUFFIXES)
        found += [str(path) for path in files if not any(word in path.stem.lower() for word in UNWANTED)]
    return (*first, *found)


@lru_cache(maxsize=16)
def _warn_once(characters: str) -> None:
    logger.warning(
        "no installed font has %s: they are written as escapes; install one, or name its file in %s",
        characters,
        FONT_VARIABLE,
    )
