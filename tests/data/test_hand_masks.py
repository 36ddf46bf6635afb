import json

import numpy as np
import pytest
from PIL import Image

from geopos_diffusers.cli.main import main
from geopos_diffusers.data.hand_masks import convex_hull, draw_mask
from geopos_diffusers.finetuning.image_text_data import load_image_text
from geopos_diffusers.finetuning.records import Columns

# An upright open hand in a square of side 1: the wrist below, the thumb to the left.
OPEN_HAND = np.array(
    [[0.5, 0.95]]
    + [[0.4 - 0.07 * joint, 0.85 - 0.08 * joint] for joint in range(4)]
    + [[0.4 + 0.1 * finger, 0.6 - 0.15 * joint] for finger in range(4) for joint in range(4)]
)


class TestDrawing:
    def test_the_mask_covers_every_joint_and_bone(self):
        points = OPEN_HAND * 100
        mask = np.asarray(draw_mask([points], (100, 100), 0.1))
        assert set(np.unique(mask)) == {0, 255}
        for x, y in points:
            assert mask[int(y), int(x)] == 255
        assert mask[75, 50] == 255  # the palm
        assert mask[20, 45] == 0  # between two fingers
        assert mask[5, 5] == 0

    def test_dilation_and_the_hull_cover_more(self):
        points = OPEN_HAND * 200
        areas = [np.asarray(draw_mask([points], (200, 200), dilation)).mean() for dilation in (0.0, 0.1, 0.3)]
        assert areas == sorted(areas)
        assert len(set(areas)) == 3
        hull = np.asarray(draw_mask([points], (200, 200), 0.1, "hull"))
        assert (hull < np.asarray(draw_mask([points], (200, 200), 0.1))).mean() < 2e-3  # rounding at the edges
        assert hull[40, 90] == 255

    def test_two_hands(self):
        both = draw_mask([OPEN_HAND * 50, OPEN_HAND * 50 + 50], (100, 100))
        assert np.asarray(both)[:50, :50].any()
        assert np.asarray(both)[50:, 50:].any()

    def test_the_hull_of_points(self):
        square = np.array([[0, 0], [4, 0], [4, 4], [0, 4], [2, 2], [2, 0], [1, 3]], float)
        assert sorted(map(tuple, convex_hull(square))) == [(0, 0), (0, 4), (4, 0), (4, 4)]


class TestCommand:
    @pytest.fixture
    def folder(self, tmp_path):
        rows = [
            {"file_name": "a.png", "text": "a hand", "keypoints": (OPEN_HAND * 40).tolist()},
            {"file_name": "b.png", "text": "no hand"},
        ]
        for row in rows:
            Image.new("RGB", (40, 40), "white").save(tmp_path / row["file_name"])
        (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path

    def test_masks_to_train_with(self, folder, capsys):
        before = (folder / "metadata.jsonl").read_bytes()
        assert main(["data", "mask", str(folder), "--quiet", "--dilation", "0.1"]) == 0
        assert "masks of 1 of 2 images" in capsys.readouterr().out
        assert (folder / "metadata.jsonl").read_bytes() == before
        assert Image.open(folder / "masks_preview.png").width > 100
        data = load_image_text(str(folder / "metadata_masked.jsonl"), 40, columns=Columns(mask="mask"))
        assert 0.1 < data[0]["mask"].mean() < 0.5
        assert (data[1]["mask"] == 1).all()

    def test_masks_that_are_there_are_kept_unless_they_may_be_replaced(self, folder, capsys):
        main(["data", "mask", str(folder), "--quiet"])
        drawn = (folder / "masks" / "a.png.png").read_bytes()
        assert main(["data", "mask", str(folder), "--quiet", "--shape", "hull"]) == 2
        assert "is there already; add --overwrite" in capsys.readouterr().err
        assert (folder / "masks" / "a.png.png").read_bytes() == drawn
        assert main(["data", "mask", str(folder), "--quiet", "--shape", "hull", "--overwrite"]) == 0
        assert (folder / "masks" / "a.png.png").read_bytes() != drawn

    @pytest.mark.parametrize(
        ("change", "message"),
        [({"keypoints": [[1, 2]]}, "a.png: keypoints must be 21"), ({"keypoints": None}, "no hands were found in 2")],
    )
    def test_bad_input_leaves_nothing_behind(self, folder, capsys, change, message):
        lines = (folder / "metadata.jsonl").read_text().splitlines()
        (folder / "metadata.jsonl").write_text(json.dumps(json.loads(lines[0]) | change) + "\n" + lines[1])
        assert main(["data", "mask", str(folder), "--quiet"]) == 2
        assert message in capsys.readouterr().err
        assert sorted(path.name for path in folder.iterdir()) == ["a.png", "b.png", "metadata.jsonl"]
