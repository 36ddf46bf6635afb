"""The square of a hand, its mask, and pasting back: what lies where, to the pixel."""

import numpy as np
import pytest
from PIL import Image

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.repair.canvas import Canvas
from geopos_diffusers.repair.regions import hand_region


def noise(width: int, height: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


BOXES = [(0.4, 0.4, 0.6, 0.6), (0.0, 0.0, 0.2, 0.1), (0.7, 0.1, 1.0, 0.9), (0.0, 0.0, 1.0, 1.0), (0.45, 0.5, 0.55, 0.9)]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("size", [(100, 100), (300, 80), (37, 211)])
@pytest.mark.parametrize(("margin", "share"), [(0.25, 0.6), (0.0, 1.0), (1.5, 0.3)])
class TestPlaces:
    def test_the_mask_holds_the_box_and_lies_in_square_and_image(self, box, size, margin, share):
        region = hand_region(box, size, margin, share)
        left, upper, right, lower = region.mask
        longer = max(box[2] * size[0] - box[0] * size[0], box[3] * size[1] - box[1] * size[1])
        assert 0 <= left <= box[0] * size[0]
        assert box[2] * size[0] - 1e-9 <= right <= size[0]
        assert 0 <= upper <= box[1] * size[1]
        assert box[3] * size[1] - 1e-9 <= lower <= size[1]
        assert region.left <= left
        assert right <= region.left + region.side
        assert region.top <= upper
        assert lower <= region.top + region.side
        assert (left, upper) == tuple(max(0, int(np.floor(box[i] * size[i] - margin * longer))) for i in (0, 1))

    def test_the_frame_is_the_box(self, box, size, margin, share):
        region = hand_region(box, size, margin, share)
        corners = np.array(region.frame).reshape(2, 2) * region.side + (region.left, region.top)
        assert np.allclose(corners, np.array(box).reshape(2, 2) * size)

    def test_nothing_outside_the_mask_changes(self, box, size, margin, share):
        before = noise(*size)
        canvas, region = Canvas(Image.fromarray(before)), hand_region(box, size, margin, share)
        canvas.paste(region, canvas.blend(region, Image.new("RGB", (16, 16), "white")))
        changed = (np.asarray(canvas.image) != before).any(2)
        left, upper, right, lower = region.mask
        inside = np.zeros_like(changed)
        inside[upper:lower, left:right] = True
        assert changed.any()
        assert not (changed & ~inside).any()

    def test_the_square_is_that_part_of_the_image(self, box, size, margin, share):
        before = noise(*size)
        region = hand_region(box, size, margin, share)
        square = np.asarray(Canvas(Image.fromarray(before)).square(region))
        assert square.shape == (region.side, region.side, 3)
        left, upper, right, lower = region.mask
        part = square[upper - region.top : lower - region.top, left - region.left : right - region.left]
        assert (part == before[upper:lower, left:right]).all()


def test_a_hand_fills_its_share_where_there_is_room():
    region = hand_region((0.45, 0.45, 0.55, 0.5), (1000, 800), 0.25, 0.5)
    assert region.side == 200  # the longer side has 100 pixels
    assert region.frame == pytest.approx((0.25, 0.4, 0.75, 0.6))
    assert hand_region((0.1, 0.1, 0.9, 0.9), (100, 100), 0.05, 0.5).side == 100  # no room


def test_new_pixels_fade_into_old_ones_but_not_at_the_image_edge():
    """White on black, margin 20 pixels, so over 10 of them; the mask reaches the image's left edge."""
    canvas = Canvas(Image.new("RGB", (200, 200)))
    region = hand_region((0.05, 0.3, 0.45, 0.7), (200, 200), 0.25, 0.6)
    assert region.mask == (0, 40, 110, 160)
    assert region.feather == 10
    part = canvas.blend(region, Image.new("RGB", (64, 64), "white"))
    expected = np.rint(255 * np.arange(1, 11) / 11)
    assert np.abs(part[60, -10:, 0][::-1] - expected).max() <= 1
    assert np.abs(part[:10, 50, 0] - expected).max() <= 1
    assert (part[60, :100] == 255).all()
    assert canvas.image.getextrema() == ((0, 0),) * 3  # nothing pasted yet


@pytest.mark.parametrize("size", [8, 16, 64])
def test_the_masks_picture_covers_the_mask(size):
    region = hand_region((0.3, 0.2, 0.5, 0.6), (211, 173), 0.2, 0.5)
    mask = np.asarray(region.mask_image(size))
    scale = size / region.side
    area = (region.mask[2] - region.mask[0]) * (region.mask[3] - region.mask[1]) * scale**2
    assert set(np.unique(mask)) == {0, 255}
    assert area <= (mask == 255).sum() <= area + 4 * size


def test_a_mask_of_a_pixel_is_not_lost():
    region = hand_region((0.5, 0.5, 0.51, 0.51), (100, 100), 0.0, 0.1)
    assert region.side == 10
    assert np.asarray(region.mask_image(8)).any()
    with pytest.raises(ConfigError, match="covers less than a pixel of an image of 100x50"):
        hand_region((0.5, 0.5, 0.51, 0.51), (100, 50), 0.25, 0.5)


def test_pasting_blends_in_strips_as_at_once():
    """The mask is higher than a strip."""
    before = noise(40, 700)
    canvas, region = Canvas(Image.fromarray(before)), hand_region((0.2, 0.05, 0.8, 0.95), (40, 700), 0.0, 1.0)
    drawn = Image.fromarray(noise(region.side, region.side)[:, ::-1].copy())
    part = canvas.blend(region, drawn)
    left, upper, right, lower = region.mask
    whole = np.asarray(drawn)[upper - region.top : lower - region.top, left - region.left : right - region.left]
    assert region.feather == 0
    assert (part == whole).all()


def test_the_alpha_channel_stays():
    before = noise(60, 60, 4)
    canvas, region = Canvas(Image.fromarray(before)), hand_region((0.3, 0.3, 0.7, 0.7), (60, 60), 0.25, 0.6)
    canvas.paste(region, canvas.blend(region, Image.new("RGB", (8, 8), "red")))
    after = np.asarray(canvas.image)
    assert canvas.image.mode == "RGBA"
    assert (after[..., 3] == before[..., 3]).all()
    assert (after[24:36, 24:36, :3] == (255, 0, 0)).all()
    clear = Canvas(Image.new("RGBA", (20, 20), (9, 9, 9, 0)))
    square = clear.square(hand_region((0.2, 0.2, 0.8, 0.8), (20, 20), 0.0, 1.0))
    assert square.mode == "RGB"
    assert square.getextrema() == ((255, 255),) * 3
