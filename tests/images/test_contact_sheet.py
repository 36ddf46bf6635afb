import numpy as np
import pytest
from PIL import Image

from geopos_diffusers.errors import DataError
from geopos_diffusers.images.contact_sheet import MARGIN, contact_sheet


def plain(width: int, height: int, color: tuple[int, int, int] = (200, 30, 30)) -> Image.Image:
    return Image.new("RGB", (width, height), color)


class TestLayout:
    def test_size_without_captions(self):
        sheet = contact_sheet([plain(64, 64)] * 5, columns=3, cell=64)
        assert sheet.mode == "RGB"
        assert sheet.size == (3 * (64 + MARGIN) + MARGIN, 2 * (64 + MARGIN) + MARGIN)

    @pytest.mark.parametrize(("count", "columns"), [(1, 1), (4, 2), (5, 3), (9, 3), (10, 4)])
    def test_grid_is_about_square(self, count, columns):
        sheet = contact_sheet([plain(16, 16)] * count, cell=16)
        assert sheet.width == columns * (16 + MARGIN) + MARGIN

    def test_captions_make_it_higher_only_in_their_row(self):
        images = [plain(64, 64)] * 2
        bare = contact_sheet(images, columns=1, cell=64).height
        short = contact_sheet(images, ["a", ""], columns=1, cell=64).height
        long = contact_sheet(images, ["a caption that needs several lines in a cell", ""], columns=1, cell=64).height
        assert bare < short < long

    def test_long_words_stay_within_their_cell(self):
        sheet = np.asarray(contact_sheet([plain(64, 64)] * 2, ["m" * 60, ""], columns=2, cell=64))
        right_cell = sheet[MARGIN + 64 :, 2 * MARGIN + 64 :]
        assert (right_cell == 255).all()

    def test_captions_are_drawn(self):
        sheet = np.asarray(contact_sheet([plain(64, 64)], ["three"], cell=64))
        assert (sheet[MARGIN + 64 :] < 100).any()


class TestPictures:
    def test_small_pictures_grow_by_a_whole_factor(self):
        noise = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
        sheet = np.asarray(contact_sheet([Image.fromarray(noise)], cell=64))
        enlarged = noise.repeat(2, axis=0).repeat(2, axis=1)
        top, left = MARGIN, MARGIN + 12
        assert (sheet[top : top + 60, left : left + 40] == enlarged).all()

    def test_a_row_is_as_high_as_its_highest_picture(self):
        wide, square = plain(64, 32), plain(64, 64)
        assert contact_sheet([wide] * 4, columns=2, cell=64).height == 2 * (32 + MARGIN) + MARGIN
        assert contact_sheet([wide, wide, wide, square], columns=2, cell=64).height == 32 + 64 + 3 * MARGIN

    def test_large_pictures_shrink_and_keep_their_shape(self):
        sheet = np.asarray(contact_sheet([plain(400, 200)], cell=64))
        red = (sheet == (200, 30, 30)).all(-1)
        assert red.any(1).sum() == 32
        assert red.any(0).sum() == 64

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I", "CMYK"])
    def test_every_mode(self, mode):
        assert contact_sheet([plain(20, 20).convert("L").convert(mode)], cell=32).mode == "RGB"

    def test_transparent_is_white(self):
        sheet = np.asarray(contact_sheet([Image.new("RGBA", (32, 32), (0, 0, 0, 0))], cell=32))
        assert (sheet == 255).all()


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"images": []}, "at least one image"),
            ({"images": [plain(8, 8)], "captions": ["a", "b"]}, "2 captions were given for 1 images"),
            ({"images": [plain(8, 8)], "columns": 0}, "columns is 0"),
            ({"images": [plain(8, 8)], "cell": 4}, "cell is 4"),
        ],
    )
    def test_says_what_was_given(self, arguments, message):
        with pytest.raises(DataError, match=message):
            contact_sheet(**arguments)
