"""Colours of images that are read to be repaired and written again, with the profiles that say what they are."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from geopos_diffusers.repair.picture_files import open_picture, save_picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def profile(space: bytes, connection: bytes, name: bytes, tag: bytes) -> bytes:
    """An ICC profile of version 2 with a white point and one tag (ICC.1:2001-04, section 6)."""
    tag += bytes(-len(tag) % 4)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    first = 128 + 4 + 2 * 12
    table = struct.pack(">I4sII4sII", 2, b"wtpt", first, len(white), name, first + len(white), len(tag))
    header = struct.pack(">I4sI4s4s4s", first + len(white) + len(tag), b"", 0x02400000, b"prtr", space, connection)
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + white + tag


# Half of the values is half of the light: 188 in sRGB.
LINEAR_GREY = profile(b"GRAY", b"XYZ ", b"kTRC", b"curv" + bytes(8))
# Paper is white; all ink, of whatever colour, is black. Inputs, outputs and nodes; a unit matrix; curves and the table.
RAMP = bytes(range(256))
LUT = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(65536 * np.eye(3, dtype=int)).ravel())
BLACK_INKS = profile(
    b"CMYK", b"Lab ", b"A2B0", LUT + 4 * RAMP + bytes([255, 128, 128]) + 15 * bytes([0, 128, 128]) + 3 * RAMP
)


def saved(path: Path) -> Image.Image:
    """What is written of an image that is read from `path`."""
    picture = open_picture(path)
    save_picture(picture, path.with_name("saved.png"), picture, {})
    written = Image.open(path.with_name("saved.png"))
    written.load()
    return written


class TestProfiles:
    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
    def test_of_rgb_images_stay_and_so_do_their_pixels(self, tmp_path, mode):
        image = Image.new(mode, (4, 4), (200, 100, 50, 90)[: len(mode)] if mode != "P" else 0)
        if mode == "P":
            image.putpalette([200, 100, 50])
        image.save(tmp_path / "image.png", icc_profile=SRGB)
        written = saved(tmp_path / "image.png")
        assert written.info["icc_profile"] == SRGB
        assert written.getpixel((1, 1))[:3] == (200, 100, 50)

    @pytest.mark.parametrize(
        ("mode", "colour", "name", "given", "expected"),
        [
            ("L", 128, "image.png", LINEAR_GREY, (188, 188, 188)),
            ("LA", (128, 70), "image.png", LINEAR_GREY, (188, 188, 188, 70)),
            ("1", 1, "image.png", LINEAR_GREY, (255, 255, 255)),
            ("CMYK", (0, 0, 0, 0), "image.tif", BLACK_INKS, (255, 255, 255)),
            ("CMYK", (255, 0, 0, 0), "image.tif", BLACK_INKS, (0, 0, 0)),
            ("CMYK", (0, 255, 0, 0), "image.jpg", BLACK_INKS, (0, 0, 0)),
        ],
    )
    def test_of_other_images_are_applied(self, tmp_path, mode, colour, name, given, expected):
        image = Image.new(mode, (16, 16), colour)
        image.save(tmp_path / name, icc_profile=given)
        written = saved(tmp_path / name)
        assert "icc_profile" not in written.info
        assert np.abs(np.array(written.getpixel((8, 8))) - expected).max() <= 2

    @pytest.mark.parametrize(
        ("mode", "colour", "name", "given", "expected"),
        [
            ("L", 128, "image.png", SRGB, (128, 128, 128)),
            ("L", 128, "image.png", LINEAR_GREY[:140], (128, 128, 128)),
            ("L", 128, "image.png", b"no profile", (128, 128, 128)),
            ("RGB", (200, 100, 50), "image.png", LINEAR_GREY, (200, 100, 50)),
            ("RGB", (200, 100, 50), "image.png", BLACK_INKS, (200, 100, 50)),
            ("CMYK", (255, 0, 0, 0), "image.tif", BLACK_INKS[:200], (0, 255, 255)),
            ("CMYK", (255, 0, 0, 0), "image.tif", SRGB, (0, 255, 255)),
            ("LAB", (128, 128, 128), "image.tif", LAB, (119, 119, 119)),
        ],
    )
    def test_of_another_kind_or_damaged_are_left_out(self, tmp_path, mode, colour, name, given, expected):
        image = Image.new(mode, (16, 16), colour)
        image.save(tmp_path / name, icc_profile=given)
        written = saved(tmp_path / name)
        assert "icc_profile" not in written.info
        assert np.abs(np.array(written.getpixel((8, 8))) - expected).max() <= 2
