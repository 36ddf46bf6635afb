import shutil

import numpy as np
import pytest
import torch
from experiments.statistics import area_under_curve
from PIL import Image, ImageOps

from geopos_diffusers.data.hands import render_hands
from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.hand_judge import (
    FOLDER,
    WEIGHTS_FILE,
    Square,
    crop_square,
    load_hand_judge,
    square_around,
    whole_square,
)

OPTIONS = {"views": ("palm", "back"), "poses": "canonical", "max_tilt": 15.0, "max_rotation": 20.0}


@pytest.fixture(scope="module")
def judge():
    return load_hand_judge()


@pytest.fixture(scope="module")
def hands():
    """150 hands that no training saw, half of them with defects: images and rows."""
    pytest.importorskip("anny", reason="rendering hands needs the extra geopos-diffusers[data]")
    images, rows = zip(*render_hands(150, 64, seed=9001, defects=0.5, **OPTIONS), strict=True)
    return list(images), list(rows)


@pytest.fixture(scope="module")
def judged(judge, hands):
    return judge.judge(hands[0])


def sound_of(rows):
    return np.array([row["well_formed"] for row in rows])


class TestAnswers:
    def test_tells_well_formed_hands_from_defects(self, hands, judged):
        scores, sound = np.array([one.well_formed for one in judged]), sound_of(hands[1])
        assert area_under_curve(scores[~sound], scores[sound]) > 0.93

    def test_counts_fingers(self, hands, judged):
        right = [one.fingers == row["fingers"] for one, row in zip(judged, hands[1], strict=True) if row["well_formed"]]
        assert np.mean(right) > 0.93

    def test_tells_left_from_right(self, hands, judged):
        right = [
            (one.right_hand > 0.5) == (row["handedness"] == "right")
            for one, row in zip(judged, hands[1], strict=True)
            if row["well_formed"]
        ]
        assert np.mean(right) > 0.93

    def test_finds_key_points(self, hands, judged):
        errors = [
            np.linalg.norm(one.keypoints - row["keypoints"], axis=1).mean() / np.ptp(row["keypoints"], axis=0).max()
            for one, row in zip(judged, hands[1], strict=True)
            if row["well_formed"]
        ]
        assert np.mean(errors) < 0.05

    def test_sees_hands_and_not_emptiness(self, judge, judged):
        assert np.mean([one.present > 0.5 for one in judged]) > 0.9
        generator = np.random.default_rng(0)
        plain = [Image.new("RGB", (64, 64), tuple(int(c) for c in generator.integers(0, 256, 3))) for _ in range(20)]
        assert np.mean([one.present > 0.5 for one in judge.judge(plain)]) < 0.2

    def test_ranges(self, judged):
        for one in judged:
            for share in (one.present, one.well_formed, one.right_hand):
                assert isinstance(share, float)
                assert 0.0 <= share <= 1.0
            assert one.finger_probabilities.shape == (6,)
            assert one.finger_probabilities.sum() == pytest.approx(1.0)
            assert one.fingers == one.finger_probabilities.argmax()
            assert one.keypoints.shape == (21, 2)
            assert one.keypoints.dtype == np.float64


class TestSameAnswers:
    def test_whatever_the_batch(self, judge, hands, judged):
        for index in (0, 17, 33):
            (alone,) = judge.judge([hands[0][index]])
            assert alone.well_formed == pytest.approx(judged[index].well_formed, abs=1e-4)
            np.testing.assert_allclose(alone.keypoints, judged[index].keypoints, atol=1e-2)

    @pytest.mark.parametrize("mode", ["RGBA", "L", "P", "CMYK", "I;16"])
    def test_in_another_mode(self, judge, hands, mode):
        grey = ImageOps.grayscale(hands[0][0])
        if mode == "I;16":
            image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        else:
            image = grey.convert(mode) if mode in ("L", "P") else grey.convert("RGB").convert(mode)
        first, second = judge.judge([grey, image])
        assert second.well_formed == pytest.approx(first.well_formed, abs=0.03)
        np.testing.assert_allclose(first.keypoints, second.keypoints, atol=1.0)

    def test_mirror_image_is_the_other_hand(self, judge, hands, judged):
        mirrored = judge.judge([ImageOps.mirror(image) for image in hands[0][:60]])
        changed = [
            (one.right_hand > 0.5) != (other.right_hand > 0.5) for one, other in zip(judged, mirrored, strict=False)
        ]
        assert np.mean(changed) > 0.9

    def test_key_points_are_those_of_the_image_as_given(self, judge, hands, judged):
        """Enlarged, on a wide canvas, and larger than the judge looks at."""
        image, points = hands[0][2], judged[2].keypoints
        (large,) = judge.judge([image.resize((1280, 1280), Image.Resampling.BILINEAR)])
        np.testing.assert_allclose(large.keypoints / 20, points, atol=3.0)
        wide = Image.fromarray(np.pad(np.asarray(image), ((0, 0), (0, 40), (0, 0)), mode="edge"))
        (found,) = judge.judge([wide])
        np.testing.assert_allclose(found.keypoints, points, atol=5.0)

    def test_threads_are_left_alone(self, judge, hands):
        before = torch.get_num_threads()
        judge.judge(hands[0][:2])
        assert torch.get_num_threads() == before

    def test_none_of_no_images(self, judge):
        assert judge.judge([]) == []


class TestSquares:
    def test_whole_square_is_centred(self):
        assert whole_square(np.zeros((10, 30, 3))) == Square(15.0, 5.0, 30.0, 0.0)
        assert whole_square(np.zeros((9, 5, 3))) == Square(2.5, 4.5, 9.0, 0.0)

    def test_edges_are_repeated(self):
        picture = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
        crop = crop_square(picture, Square(0.0, 2.0, 4.0, 0.0), 4)
        np.testing.assert_array_equal(crop[:, 0], picture[:, 0])
        np.testing.assert_array_equal(crop[:, 2], picture[:, 0])
        np.testing.assert_array_equal(crop[:, 3], picture[:, 1])

    def test_square_around_points_is_upright_and_has_a_margin(self):
        points = np.tile([[30.0, 30.0]], (21, 1))
        points[0], points[9] = (10.0, 30.0), (50.0, 30.0)  # the fingers point right
        square = square_around(points)
        assert (square.x, square.y) == pytest.approx((30.0, 30.0))
        assert square.side == pytest.approx(60.0)
        assert square.angle == pytest.approx(np.pi / 2)
        assert square_around(np.full((21, 2), 5.0)).side == 8

    def test_a_dot_is_where_the_square_says(self):
        """Crops of any angle, larger and smaller than the picture, show a key point at its place."""
        picture = np.zeros((80, 100, 3), np.uint8)
        picture[28:32, 68:72] = 255
        for angle in (0.0, 0.5, np.pi / 2, 3.0):
            for side in (60.0, 150.0):
                square = Square(60.0, 40.0, side, angle)
                crop = crop_square(picture, square, 96)[..., 0].astype(float)
                rows, columns = np.mgrid[:96, :96] + 0.5
                found = np.array([(columns * crop).sum(), (rows * crop).sum()]) / crop.sum()
                expected = ((np.array([70.0, 30.0]) - (60.0, 40.0)) @ square.axes.T / side + 0.5) * 96
                np.testing.assert_allclose(found, expected, atol=0.8)


class TestFile:
    def test_is_small_and_described(self):
        assert (FOLDER / WEIGHTS_FILE).stat().st_size <= 4_000_000
        card = (FOLDER / "README.md").read_text(encoding="utf-8")
        assert "license: apache-2.0" in card

    def test_a_damaged_file_is_refused_in_one_line(self, tmp_path):
        shutil.copy(FOLDER / WEIGHTS_FILE, tmp_path)
        content = bytearray((tmp_path / WEIGHTS_FILE).read_bytes())
        content[-1] ^= 1
        (tmp_path / WEIGHTS_FILE).write_bytes(content)
        with pytest.raises(DataError, match="damaged: their SHA-256 differs") as error:
            load_hand_judge(tmp_path)
        assert "\n" not in str(error.value)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(DataError, match=r"model\.safetensors cannot be read"):
            load_hand_judge(tmp_path)

    def test_an_image_of_unknown_range_is_refused(self, judge):
        with pytest.raises(DataError, match="floating-point"):
            judge.judge([Image.fromarray(np.zeros((8, 8), np.float32))])
