import json

import numpy as np
import pytest

from geopos_diffusers.cli.main import main
from geopos_diffusers.data.hand_conditions import FINGER_COLOURS, draw_depth, draw_skeleton
from geopos_diffusers.data.hands import HandOptions, HandRenderer
from geopos_diffusers.errors import DataError
from geopos_diffusers.images.opening import open_image

# A hand whose fingers stand upright side by side, thumb at the left.
FINGERS = [[(12 + 10 * finger, 40 - 9 * joint) for joint in range(4)] for finger in range(5)]
KEYPOINTS = np.array([(32, 60), *(point for finger in FINGERS for point in finger)], dtype=float)


class TestSkeleton:
    def test_each_finger_has_its_colour_at_its_joints(self):
        pixels = np.asarray(draw_skeleton(KEYPOINTS, 64), int)
        for finger, colour in enumerate(FINGER_COLOURS):
            for x, y in KEYPOINTS[1 + 4 * finger : 5 + 4 * finger].astype(int):
                assert np.abs(pixels[y, x] - colour).max() < 40
        assert (pixels[:, :6] == 0).all()

    def test_sizes_and_joints_outside(self):
        image = draw_skeleton(KEYPOINTS * [2, 1], (128, 64))
        assert image.size == (128, 64)
        assert np.asarray(draw_skeleton(KEYPOINTS + 1000, 64)).max() == 0

    @pytest.mark.parametrize("points", [KEYPOINTS[:20], np.full((21, 2), np.nan)])
    def test_other_points_are_refused(self, points):
        with pytest.raises(DataError, match="21 finite pairs"):
            draw_skeleton(points, 64)


class TestDepth:
    def test_near_is_bright_and_the_background_black(self):
        grey = np.asarray(draw_depth(np.array([[0.0, 5.0], [5.5, 6.0]])))
        assert grey.tolist() == [[0, 255], [round(255 - 191 / 2), 64]]

    def test_of_a_rendered_hand_it_covers_what_the_mask_covers(self):
        (hand,) = HandRenderer(32, 3, HandOptions()).draw(0, 1)
        assert np.array_equal(np.asarray(draw_depth(hand.depth)) > 0, hand.mask > 0)


def test_the_command_writes_them_beside_the_images(tmp_path, capsys):
    words = ["data", "hands", "--num-images", "2", "--size", "32", "--seed", "3", "--quiet"]
    assert main([*words, "--output", str(tmp_path / "plain")]) == 0
    assert main([*words, "--conditioning", "skeleton", "depth", "--output", str(tmp_path / "more")]) == 0
    plain, more = (
        [json.loads(line) for line in (tmp_path / name / "metadata.jsonl").read_text().splitlines()]
        for name in ("plain", "more")
    )
    assert [{key: row[key] for key in plain[0]} for row in more] == plain
    assert more[1]["skeleton_file_name"] == "skeleton/000001.png"
    drawn = open_image(tmp_path / "more" / more[1]["skeleton_file_name"])
    assert np.array_equal(np.asarray(drawn), np.asarray(draw_skeleton(more[1]["keypoints"], 32)))
    depth = np.asarray(open_image(tmp_path / "more" / more[1]["depth_file_name"]))[..., 0]
    left, top, right, bottom = more[1]["box"]
    assert (depth[int(top) : int(bottom) + 1, int(left) : int(right) + 1] > 0).mean() > 0.2
    assert main([*words, "--conditioning", "bones", "--output", str(tmp_path / "other")]) != 0
    assert "skeleton, depth" in capsys.readouterr().err


def test_datasets_reads_them_as_columns(tmp_path):
    from datasets import load_dataset

    main(["data", "hands", "--num-images", "2", "--size", "16", "--quiet", "--conditioning", "skeleton",
          "--output", str(tmp_path / "hands")])  # fmt: skip
    data = load_dataset("imagefolder", data_dir=str(tmp_path / "hands"), split="train", cache_dir=str(tmp_path / "c"))
    assert len(data) == 2
    assert data[0]["skeleton"].size == data[0]["image"].size == (16, 16)
