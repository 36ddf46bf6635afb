import numpy as np
import pytest
from PIL import Image

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.hand_crops import HandBox, crop_hand, hand_box

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def image():
    return Image.fromarray(NOISE)


class TestBox:
    def test_is_a_square_around_the_landmarks(self):
        box = hand_box(np.array([[10, 20, 5], [30, 60, -5], [20, 30, 0]]), margin=0.25)
        assert box == HandBox(left=-10, top=10, side=60)

    def test_moves_and_scales_with_the_landmarks(self):
        points = np.random.default_rng(1).uniform(0, 100, (21, 3))
        box, moved = hand_box(points), hand_box(2 * points + 7)
        assert np.allclose((moved.left, moved.top, moved.side), (2 * box.left + 7, 2 * box.top + 7, 2 * box.side))

    @pytest.mark.parametrize(
        ("points", "margin", "message"),
        [
            ([[0, 0], [np.nan, 1]], 0.2, "not finite"),
            ([[3, 3], [3, 3]], 0.2, "all in one place"),
            ([[0, 0], [1, 1]], -0.1, "give 0 or more"),
            ([[0, 0], [1, 1]], np.nan, "give 0 or more"),
        ],
    )
    def test_what_has_no_box(self, points, margin, message):
        with pytest.raises(DataError, match=message):
            hand_box(np.array(points), margin)


class TestCrop:
    def test_without_a_size_pixels_are_untouched(self, image):
        crop = crop_hand(image, HandBox(5.3, 9.6, 20.2))
        assert (np.asarray(crop) == NOISE[10:30, 5:25]).all()

    def test_with_a_size_whole_pixels_are_untouched_too(self, image):
        assert (np.asarray(crop_hand(image, HandBox(5, 9, 20), 20)) == NOISE[9:29, 5:25]).all()

    def test_edge_pixels_are_repeated(self, image):
        crop = np.asarray(crop_hand(image, HandBox(-10, -5, 80)))
        assert (crop == np.pad(NOISE, ((5, 35), (10, 10), (0, 0)), mode="edge")).all()

    def test_beside_the_image_there_are_only_edge_pixels(self, image):
        assert (np.asarray(crop_hand(image, HandBox(100, -50, 10), 6)) == NOISE[0, -1]).all()

    def test_fractions_of_pixels_are_kept(self):
        """A ramp of grey 2 per pixel: the middle of a box is the ramp's value there."""
        ramp = Image.fromarray(np.tile(np.arange(0, 200, 2, dtype=np.uint8), (100, 1)))
        crop = np.asarray(crop_hand(ramp, HandBox(20.25, 30.5, 40.5), 81))[..., 0].astype(float)
        assert abs(crop.mean() - 2 * (20.25 + 40.5 / 2 - 0.5)) < 0.6

    @pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
    def test_is_rgb(self, image, mode):
        assert crop_hand(image.convert(mode), HandBox(0, 0, 9), 4).mode == "RGB"

    def test_bad_sizes(self, image):
        with pytest.raises(DataError, match="is 0; give 1 pixel"):
            crop_hand(image, HandBox(0, 0, 10), 0)
        with pytest.raises(DataError, match="too large for an image of 60"):
            crop_hand(image, HandBox(0, 0, 1e9), 10)


def test_the_whole_rendered_hand_is_inside(detector):
    """With landmarks that were found; pixels of the hand are those of the mask on the fingers' side of the wrist."""
    pytest.importorskip("anny", reason="rendering hands needs the extra geopos-diffusers[data]")
    from geopos_diffusers.data.hands import HandOptions, HandRenderer

    inside = []
    for hand in HandRenderer(96, 3, HandOptions(fill=(0.4, 0.7), views=("palm", "back"))).draw(0, 12):
        found = detector.detect(hand.image)
        keypoints = np.array(hand.attributes["keypoints"])
        y, x = np.mgrid[:96, :96] + 0.5
        beyond_wrist = (np.stack([x, y], axis=-1) - keypoints[0]) @ (keypoints[9] - keypoints[0]) > 0
        pixels = (hand.mask > 0.5) & beyond_wrist
        if found:
            box = hand_box(found[0].landmarks)
            columns, rows = (x > box.left) & (x < box.left + box.side), (y > box.top) & (y < box.top + box.side)
            inside.append((pixels & columns & rows).sum() / pixels.sum())
    assert len(inside) >= 9
    assert np.median(inside) >= 0.99
