"""`geopos data boxes`: boxes of rendered hands against what was rendered, and its files."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import refused
from PIL import Image

from geopos_diffusers.boxes import check_box
from geopos_diffusers.cli.main import main
from geopos_diffusers.data.hands import HandOptions, make_draw_hands
from geopos_diffusers.data.image_folder import write_image_folder
from geopos_diffusers.images.box_drawing import COLOUR
from geopos_diffusers.images.hand_boxes import box_of_hand


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def overlap(first, second) -> float:
    """Intersection over union of two boxes."""
    first, second = np.array(first), np.array(second)
    shared = np.prod(np.clip(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), 0, None))
    return float(shared / (np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2]) - shared))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    """16 images of one or two hands, and a blank one."""
    options = HandOptions(placement="anywhere", scale=(0.4, 0.6), hands=(1, 2), max_tilt=12, poses="canonical")
    folder = tmp_path_factory.mktemp("rendered") / "hands"
    write_image_folder(lambda: make_draw_hands(128, 5, options), 16, folder, progress=False)
    Image.new("RGB", (64, 64), "white").save(folder / "blank.png")
    with open(folder / "metadata.jsonl", "a") as file:
        file.write(json.dumps({"file_name": "blank.png", "text": "nothing", "box": [1, 2, 3, 4]}) + "\n")
    return folder


@pytest.fixture
def folder(rendered):
    """As rendered, and so again after the test."""
    yield rendered
    for name in ("metadata_boxes.jsonl", "boxes_preview.png"):
        (rendered / name).unlink(missing_ok=True)


def known_boxes(row: dict) -> list:
    return row.get("boxes") or ([row["box"]] if "box" in row else [])


class TestBox:
    POINTS = np.array([[20.0, 10.0], [60.0, 20.0], [40.0, 30.0]])

    def test_shares_with_a_margin_of_the_longer_side(self):
        assert box_of_hand(self.POINTS, (100, 50), 0.1) == (0.16, 0.12, 0.64, 0.68)
        assert box_of_hand(self.POINTS, (100, 50), 0.0) == (0.2, 0.2, 0.6, 0.6)

    def test_ends_at_the_edge_of_the_image(self):
        assert box_of_hand(self.POINTS - (30, 0), (100, 50), 0.0) == (0.0, 0.2, 0.3, 0.6)
        assert box_of_hand(self.POINTS - 100, (100, 50), 0.1) is None


class TestCommand:
    def test_of_key_points_are_those_that_were_rendered(self, folder, capsys):
        before = (folder / "metadata.jsonl").read_bytes()
        assert main(["data", "boxes", str(folder), "--from", "keypoints", "--quiet"]) == 0
        assert (folder / "metadata.jsonl").read_bytes() == before
        found, true = rows(folder / "metadata_boxes.jsonl"), rows(folder / "metadata.jsonl")
        assert "box" not in found[-1]
        assert {key: value for key, value in found[0].items() if key not in ("box", "boxes")} == {
            key: value for key, value in true[0].items() if key not in ("box", "boxes")
        }
        both = ((known_boxes(row), known_boxes(other)) for row, other in zip(found[:-1], true[:-1], strict=True))
        pairs = [pair for boxes, others in both for pair in zip(boxes, others, strict=True)]
        assert len(pairs) > 16
        for box, _ in pairs:
            check_box(box)
        assert np.mean([overlap(*pair) for pair in pairs]) > 0.8
        several = sum("boxes" in row for row in found)
        line = f"boxes of {16 - several} images with one hand, {several} with several, 1 without"
        assert line in capsys.readouterr().out
        sheet = np.asarray(Image.open(folder / "boxes_preview.png"))
        assert (sheet == COLOUR).all(axis=2).sum() > 16 * 100

    def test_of_detected_hands(self, folder, capsys):
        pytest.importorskip("mediapipe", reason="finding hands needs the extra geopos-diffusers[eval]")
        if main(["data", "boxes", str(folder), "--quiet"]):
            pytest.skip(capsys.readouterr().err)
        found, true = rows(folder / "metadata_boxes.jsonl"), rows(folder / "metadata.jsonl")
        assert not known_boxes(found[-1])
        best = [
            max(overlap(box, known) for known in known_boxes(b))
            for a, b in zip(found[:-1], true[:-1], strict=True)
            for box in known_boxes(a)
        ]
        assert len(best) >= 8
        assert np.median(best) > 0.7

    def test_files_that_are_there_are_kept_unless_they_may_be_replaced(self, folder, capsys):
        command = ["data", "boxes", str(folder), "--from", "keypoints", "--quiet"]
        main(command)
        written = (folder / "metadata_boxes.jsonl").read_bytes()
        assert "is there already; add --overwrite" in refused(capsys, *command, "--margin", "0.2")
        assert (folder / "metadata_boxes.jsonl").read_bytes() == written
        assert main([*command, "--margin", "0.2", "--overwrite"]) == 0
        assert (folder / "metadata_boxes.jsonl").read_bytes() != written

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (['{"file_name": "a.png"}'], "no hands were found in 1 images"),
            (['{"file_name": "a.png", "keypoints": [[1, 2]]}'], "a.png: keypoints must be 21"),
            (['{"file_name": "a.png", "hands": [{"keypoints": 3}]}'], "a.png: keypoints must be 21"),
            (['{"file_name": "gone.png"}'], "line 1: gone.png: the file is missing"),
            (["{"], "line 1: not JSON"),
            ([], "no hands were found in 0 images"),
        ],
    )
    def test_bad_folders_stay_as_they_are(self, tmp_path, capsys, lines, message):
        Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
        (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
        assert message in refused(capsys, "data", "boxes", str(tmp_path), "--from", "keypoints", "--quiet")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "metadata.jsonl"]

    def test_other_refusals(self, tmp_path, capsys):
        assert "has no metadata.jsonl" in refused(capsys, "data", "boxes", str(tmp_path), "--from", "keypoints")
        assert "margin is 2.0; give 0 to 1" in refused(capsys, "data", "boxes", str(tmp_path), "--margin", "2")
