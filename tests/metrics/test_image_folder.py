import json
import math
import os

import numpy as np
import pytest
from PIL import Image

from geopos_diffusers.cli.generate import save_png
from geopos_diffusers.cli.generate import write_metadata as write_generated
from geopos_diffusers.cli.main import main
from geopos_diffusers.errors import DataError
from geopos_diffusers.images.opening import open_image
from geopos_diffusers.metrics.hand_attributes import HandAttributes
from geopos_diffusers.metrics.image_folder import list_images
from geopos_diffusers.pipelines.generation import Generated


@pytest.fixture
def folder(tmp_path):
    for number in range(5):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


def write_metadata(folder, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


class TestList:
    def test_all_pictures_below_the_folder(self, folder):
        (folder / "more").mkdir()
        Image.new("L", (8, 8)).save(folder / "more" / "5.JPG")
        (folder / "notes.txt").write_text("no picture")
        (folder / ".hidden").mkdir()
        Image.new("L", (8, 8)).save(folder / ".hidden" / "6.png")
        found = list_images(folder)
        assert [picture.name for picture in found.entries] == [*(f"{n}.png" for n in range(5)), "more/5.JPG"]
        assert not found.has_metadata
        assert found.entries[0].attributes == HandAttributes()

    def test_metadata_says_which_and_what(self, folder):
        write_metadata(folder, {"file_name": "3.png", "text": "the back of a left hand, two fingers raised"}, "")
        found = list_images(folder)
        assert [picture.name for picture in found.entries] == ["3.png"]
        assert found.entries[0].attributes == HandAttributes(2, "back", "left", None, 1)
        assert found.has_metadata

    def test_limit(self, folder):
        first = [picture.name for picture in list_images(folder, limit=3, seed=1).entries]
        assert first == sorted(first)
        assert len(set(first)) == 3
        assert first == [picture.name for picture in list_images(folder, limit=3, seed=1).entries]
        assert list_images(folder, limit=3).available == 5
        assert len(list_images(folder, limit=9).entries) == 5

    def test_limited_folders_keep_the_same_names(self, tmp_path):
        for name, numbers in (("all", range(30)), ("fewer", range(1, 30))):
            (tmp_path / name).mkdir()
            for number in numbers:
                Image.new("RGB", (8, 8)).save(tmp_path / name / f"{number}.png")
        for seed in range(5):
            kept = [{one.name for one in list_images(tmp_path / name, 10, seed).entries} for name in ("all", "fewer")]
            assert len(kept[0] & kept[1]) >= 9  # all but the image that is missing
        assert kept[0] != {one.name for one in list_images(tmp_path / "all", 10, 0).entries}

    def test_an_image_that_is_named_again_counts_once(self, folder):
        rows = [
            {"file_name": "1.png", "text": "first"},
            {"file_name": "0.png"},
            {"file_name": "1.png", "text": "again"},
        ]
        write_metadata(folder, *rows)
        found = list_images(folder)
        assert [(one.name, one.text) for one in found.entries] == [("1.png", "first"), ("0.png", None)]
        assert (found.available, found.repeated, list_images(folder, 1).available) == (2, 1, 2)


class TestRows:
    def test_what_generate_writes(self, tmp_path):
        """The rows of `geopos generate`, by its own function."""
        image = Image.new("RGB", (8, 8))
        items = [
            Generated(index, prompt, 40 + index, image) for index, prompt in enumerate(["two hands", "a left hand"])
        ]
        for item in items:
            save_png(item, tmp_path / f"{item.index:05d}.png", {})
        write_generated(tmp_path / "metadata.jsonl", items)
        entries = list_images(tmp_path).entries
        assert [(entry.name, entry.text, entry.seed) for entry in entries] == [
            ("00000.png", "two hands", 40),
            ("00001.png", "a left hand", 41),
        ]
        assert [entry.attributes.hands for entry in entries] == [2, 1]

    def test_what_rendered_hands_say(self, rendered_hands):
        entry = list_images(rendered_hands).entries[0]
        assert entry.keypoints.shape == (21, 2)
        assert entry.keypoints.dtype == np.float64
        assert entry.attributes.hands == 1

    def test_what_two_rendered_hands_say(self, tmp_path):
        pair = ["--hands", "1", "2", "--num-images", "6", "--size", "64", "--scale", "0.3", "0.5", "--quiet"]
        assert main(["data", "hands", *pair, "--output", str(tmp_path / "hands")]) == 0
        rows = [json.loads(line) for line in (tmp_path / "hands" / "metadata.jsonl").read_text().splitlines()]
        expected = [len(row.get("hands", [0])) for row in rows]
        assert set(expected) == {1, 2}
        entries = list_images(tmp_path / "hands").entries
        assert [entry.attributes.hands for entry in entries] == expected
        assert [len(entry.boxes) for entry in entries] == expected

    def test_what_is_not_said_is_none(self, folder):
        write_metadata(folder, {"file_name": "0.png", "seed": None, "keypoints": None})
        entry = list_images(folder).entries[0]
        assert (entry.text, entry.seed, entry.keypoints) == (None, None, None)

    @pytest.mark.parametrize("seed", ["7", 7.5, True, [7]])
    def test_a_seed_is_a_whole_number(self, folder, seed):
        write_metadata(folder, {"file_name": "0.png", "seed": seed})
        with pytest.raises(DataError, match=r"line 1: seed is .*; it must be a whole number"):
            list_images(folder)

    @pytest.mark.parametrize(
        "keypoints",
        [
            [[1, 2]] * 20,
            [[1, 2, 3]] * 21,
            [[1, 2]] * 20 + [[1]],
            [[1, "2"]] * 21,
            [[1, None]] * 21,
            [[True, False]] * 21,
            [[1, math.nan]] * 21,
            [[math.inf, 1]] * 21,
            [[10**400, 1]] * 21,
            {"wrist": [1, 2]},
            "21 points",
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_key_points_are_pairs_of_finite_numbers(self, folder, keypoints):
        write_metadata(folder, {"file_name": "0.png", "keypoints": keypoints})
        with pytest.raises(DataError, match="line 1: keypoints must be 21 pairs"):
            list_images(folder)


class TestFiles:
    """What a folder can hold besides images: found and opened, or refused by its reader in one line."""

    def test_a_folder_of_one_image(self, tmp_path):
        Image.new("RGB", (8, 8)).save(tmp_path / "only.png")
        assert [entry.name for entry in list_images(tmp_path).entries] == ["only.png"]

    def test_a_folder_with_the_name_of_an_image(self, folder):
        (folder / "folder.png").mkdir()
        assert len(list_images(folder).entries) == 5

    def test_links_are_followed(self, folder, tmp_path_factory):
        """A snapshot of the Hub's cache is made of links to files outside of it."""
        outside = tmp_path_factory.mktemp("blobs") / "3f2a"
        Image.new("RGB", (8, 8), (9, 8, 7)).save(outside, "PNG")
        (folder / "5.png").symlink_to(outside)
        assert open_image(list_images(folder).entries[5].path).getpixel((0, 0)) == (9, 8, 7)
        write_metadata(folder, {"file_name": "5.png"})
        assert open_image(list_images(folder).entries[0].path).getpixel((0, 0)) == (9, 8, 7)

    @pytest.mark.parametrize("name", ["/etc/hostname", "a/../../0.png", "..", "../images/0.png"])
    def test_a_name_outside_the_folder(self, folder, name):
        write_metadata(folder, {"file_name": name})
        with pytest.raises(DataError, match=r"line 1: file_name .* is outside the folder"):
            list_images(folder)

    def test_what_cannot_be_read_is_named_with_its_reason(self, folder):
        whole = (folder / "0.png").read_bytes()
        (folder / "empty.png").touch()
        (folder / "notes.jpg").write_text("no image, whatever its name says")
        (folder / "half.png").write_bytes(whole[: len(whole) // 2])
        (folder / "broken link.png").symlink_to(folder / "nowhere.png")
        Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(folder / "nan.tif")
        if hasattr(os, "mkfifo"):
            os.mkfifo(folder / "pipe.png")
        reasons = {}
        for entry in list_images(folder).entries:
            try:
                open_image(entry.path)
            except DataError as error:
                reasons[entry.name] = str(error)
        unknown = "not a readable image (empty, or of no known format)"
        expected = {"empty.png": unknown, "notes.jpg": unknown, "broken link.png": "the file is missing"}
        if hasattr(os, "mkfifo"):
            expected["pipe.png"] = "not a file"
        assert expected.items() <= reasons.items()
        assert reasons.keys() - expected == {"half.png", "nan.tif"}
        assert "floating-point numbers of unknown range" in reasons["nan.tif"]
        assert all("\n" not in reason for reason in reasons.values())


class TestBadFolders:
    def test_missing_and_empty(self, tmp_path):
        with pytest.raises(DataError, match="is not a folder"):
            list_images(tmp_path / "none")
        with pytest.raises(DataError, match="holds no images"):
            list_images(tmp_path)

    def test_limit_below_one(self, folder):
        with pytest.raises(DataError, match="is 0; give 1 or more"):
            list_images(folder, limit=0)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{", "line 2: not JSON"),
            ("[1]", "line 2: expected an object, found list"),
            ({"text": "a"}, "line 2: needs a file_name; found text"),
            ({"file_name": "../0.png"}, "line 2: file_name '../0.png' is outside"),
            ({"file_name": "0.png", "fingers": 9}, "line 2: fingers is 9"),
        ],
    )
    def test_wrong_metadata(self, folder, line, message):
        write_metadata(folder, {"file_name": "1.png"}, line)
        with pytest.raises(DataError, match=message):
            list_images(folder)
