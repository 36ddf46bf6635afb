"""Captions of any script: a font that has it, or escapes that say what stood there."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageFont

from geopos_diffusers.images import fonts
from geopos_diffusers.images.contact_sheet import contact_sheet
from geopos_diffusers.images.fonts import NO_CHARACTER, font_for, missing_characters

LATIN = "A hand, five fingers: 5"


def test_pillow_s_font_is_enough_for_english():
    font, text = font_for(LATIN, 13)
    assert text == LATIN
    assert font.getname() == ImageFont.load_default(13).getname()


@pytest.mark.parametrize("text", ["fünf", "χέρι", "рука", "يد", "יד"])
def test_other_alphabets_get_a_font_that_has_them(text):
    pytest.importorskip("matplotlib")
    assert missing_characters(text, ImageFont.load_default(13))
    font, shown = font_for(f"{text} (3)", 13)
    assert shown == f"{text} (3)"
    assert missing_characters(text, font) == set()


def test_characters_of_no_font_become_escapes(caplog, monkeypatch):
    monkeypatch.setattr(fonts, "font_files", lambda: ())
    fonts._warn_once.cache_clear()
    assert font_for("hand 手", 13)[1] == r"hand \u624b"
    assert font_for("hand 手", 13)[1] == r"hand \u624b"
    assert [record.getMessage() for record in caplog.records if "手" in record.getMessage()] == [
        "no installed font has 手: they are written as escapes; install one, or name its file in GEOPOS_FONT"
    ]


def test_the_named_font_comes_first(tmp_path):
    """In a process of its own, since the list of fonts is made once."""
    data = pytest.importorskip("matplotlib").get_data_path()
    named = f"{data}/fonts/ttf/DejaVuSerif.ttf"
    code = "from geopos_diffusers.images.fonts import font_for; print(*font_for('χέρι', 13)[0].getname())"
    environment = {"GEOPOS_FONT": named, "PYTHONPATH": ":".join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "DejaVu Serif Book"


def test_no_caption_is_made_of_boxes(monkeypatch):
    """A sheet captioned by a character without a glyph looks as one with its escape, not as one with the box."""
    monkeypatch.setattr(fonts, "font_files", lambda: ())
    image = Image.new("RGB", (64, 64))
    sheets = [np.asarray(contact_sheet([image], [text], cell=64)) for text in ("手", r"\u624b")]
    assert (sheets[0] == sheets[1]).all()
    assert missing_characters(NO_CHARACTER + "a b", ImageFont.load_default(13)) == set()  # not a character at all
    assert missing_characters("手a b", ImageFont.load_default(13)) == {"手"}
