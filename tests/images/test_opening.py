"""The opener of pictures: every kind of values becomes the right 8-bit RGB, or is refused with a reason."""

import io
import json
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, features

from geopos_diffusers.errors import DataError
from geopos_diffusers.finetuning.image_text_data import load_image_text
from geopos_diffusers.images.opening import image_size, open_image
from geopos_diffusers.metrics.features import to_pixels

RAMP = np.arange(0, 65536, 257 * 5, dtype=np.uint16).reshape(4, 13)  # 0, 5, 10 .. 255 of 255
PORTRAIT = 6  # EXIF's orientation of a picture turned by a quarter


def encoded(color, size=(20, 10), mode="RGB", format="PNG", **save_options) -> bytes:
    return written(Image.new(mode, size, color), format, **save_options)


def written(image: Image.Image, format: str, **save_options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **save_options)
    return buffer.getvalue()


def portrait() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = PORTRAIT
    return exif


def gray(picture: Image.Image) -> np.ndarray:
    pixels = np.array(picture)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded((255, 0, 0, 0), mode="RGBA"), (255, 255, 255)),
        (encoded(100, mode="L"), (100, 100, 100)),
        (encoded(1, mode="1"), (255, 255, 255)),
        (encoded((0, 0, 0, 0), mode="CMYK", format="TIFF"), (255, 255, 255)),
        (encoded((255, 0, 0, 0), mode="CMYK", format="JPEG", quality=95), (0, 255, 255)),
    ],
    ids=["transparent", "gray", "bits", "cmyk", "cmyk jpeg"],
)
def test_modes(data, expected):
    picture = open_image(data)
    assert picture.mode == "RGB"
    assert np.abs(np.subtract(picture.getpixel((0, 0)), expected)).max() <= 3


def test_photographs_are_turned_upright():
    assert open_image(encoded((1, 2, 3), format="JPEG", exif=portrait())).size == (10, 20)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("shape", [(30, 60, 3), (30, 60)], ids=["colour", "gray"])
def test_tiffs_are_turned_upright(tmp_path, shape, compression):
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    (tmp_path / "a.tif").write_bytes(written(Image.fromarray(values), "TIFF", compression=compression, exif=portrait()))
    picture = open_image(tmp_path / "a.tif")
    expected = np.asarray(Image.fromarray(np.rot90(values, -1)).convert("RGB"))
    assert (np.asarray(picture) == expected).all()
    assert image_size(tmp_path / "a.tif") == picture.size == (30, 60)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_sizes_are_those_of_the_upright_picture(format):
    data = encoded((1, 2, 3), format=format, exif=portrait())
    assert image_size(data) == open_image(data).size == (10, 20)


def test_a_palette_with_transparency():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 0, 0])
    assert open_image(written(image, "PNG")).getpixel((0, 0)) == (200, 0, 0)
    assert open_image(written(image, "PNG", transparency=1)).getpixel((0, 0)) == (255, 255, 255)
    half = bytes([255, 128])  # the second colour half transparent
    assert open_image(written(image, "PNG", transparency=half)).getpixel((0, 0)) == (227, 127, 127)


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    data = written(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_image(data).getpixel((0, 0)) == (255, 0, 0)


class TestSixteenBits:
    @pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
    def test_are_scaled(self, format):
        data = written(Image.fromarray(RAMP), format)
        assert Image.open(io.BytesIO(data)).mode == ("I" if format == "PPM" else "I;16")
        assert (gray(open_image(data)).ravel() == np.arange(0, 256, 5)).all()

    def test_of_the_other_byte_order(self):
        image = Image.frombytes("I;16B", RAMP.shape[::-1], RAMP.astype(">u2").tobytes())
        assert (gray(open_image(written(image, "TIFF"))).ravel() == np.arange(0, 256, 5)).all()

    def test_are_rounded_to_the_nearest(self):
        values = np.array([[0, 128, 129, 32767, 65535 - 129, 65535]], dtype=np.uint16)
        assert gray(open_image(written(Image.fromarray(values), "PNG"))).tolist() == [[0, 0, 1, 127, 254, 255]]

    def test_are_turned_upright(self):
        data = written(Image.fromarray(RAMP), "PNG", exif=portrait())
        assert (gray(open_image(data)) == np.rot90(RAMP // 257, -1)).all()

    def test_a_transparent_value_becomes_white(self):
        data = written(Image.fromarray(RAMP), "PNG", transparency=257 * 10)
        assert gray(open_image(data)).ravel()[:4].tolist() == [0, 5, 255, 15]

    def test_training_and_scoring_see_the_same_values(self, tmp_path):
        (tmp_path / "a.png").write_bytes(written(Image.fromarray(np.full((8, 8), 100 * 257, np.uint16)), "PNG"))
        (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": "gray"}))
        pixels = load_image_text(str(tmp_path), 8)[0]["pixels"]
        torch.testing.assert_close(pixels, torch.full((3, 8, 8), 100 / 127.5 - 1))
        expected = to_pixels(Image.new("RGB", (8, 8), (100, 100, 100)))
        assert torch.equal(to_pixels(open_image(tmp_path / "a.png")), expected)


class TestRefusals:
    @pytest.mark.parametrize(
        ("image", "kind"),
        [
            (np.full((2, 2), 0.5, np.float32), "floating-point numbers"),
            (np.full((2, 2), 9, np.int32), "32-bit integers"),
        ],
    )
    def test_values_of_unknown_range(self, tmp_path, image, kind):
        data = written(Image.fromarray(image), "TIFF")
        with pytest.raises(DataError, match=f"its values are {kind} of unknown range; save it with 8 or 16 bits"):
            open_image(data)

    @pytest.mark.parametrize("content", [b"no picture", os.urandom(200)])
    def test_no_picture(self, tmp_path, content):
        (tmp_path / "a.png").write_bytes(content)
        for source in (content, tmp_path / "a.png", str(tmp_path / "a.png"), {"bytes": content, "path": None}):
            with pytest.raises(DataError, match="not a readable image"):
                open_image(source)

    def test_a_decompression_bomb(self):
        """A file of some kilobytes that says it is 30000 pixels a side, as its checksums confirm."""
        chunk = struct.pack(">IIBBBBB", 30000, 30000, 1, 0, 0, 0, 0)
        header = b"IHDR" + chunk
        small = written(Image.new("1", (8, 8)), "PNG")
        bomb = small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]
        with pytest.raises(DataError, match=r"not a readable image \(.*decompression bomb"):
            open_image(bomb)

    def test_an_empty_file(self, tmp_path):
        (tmp_path / "a.png").touch()
        with pytest.raises(DataError, match="not a readable image"):
            open_image(tmp_path / "a.png")

    @pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
    def test_truncated(self, format, share):
        content = written(Image.effect_noise((64, 64), 50), format)
        with pytest.raises(DataError, match="not a readable image"):
            open_image(content[: int(len(content) * share)])

    def test_reasons_are_the_same_for_every_run(self):
        """Pillow's own text holds an address in memory."""
        with pytest.raises(DataError) as raised:
            open_image(b"no picture")
        assert str(raised.value) == "not a readable image (empty, or of no known format)"

    def test_a_folder(self, tmp_path):
        with pytest.raises(DataError, match=r"^not a file$"):
            open_image(tmp_path)

    @pytest.mark.skipif(not features.check("avif"), reason="this Pillow is built without AVIF")
    def test_damaged_avif(self):
        content = bytearray(written(Image.effect_noise((64, 64), 50).convert("RGB"), "AVIF"))
        pixels = content.index(b"mdat") + 4
        content[pixels : pixels + 20] = b"\xff" * 20
        with pytest.raises(DataError, match=r"not a readable image \(Failed to decode"):
            open_image(bytes(content))

    def test_missing(self, tmp_path):
        with pytest.raises(DataError, match="the file is missing"):
            open_image(tmp_path / "none.png")

    @pytest.mark.parametrize("source", [None, 3, {"bytes": None, "path": None}])
    def test_what_is_no_source(self, source):
        with pytest.raises(DataError, match="expected an image, found"):
            open_image(source)
