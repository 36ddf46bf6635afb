"""Boxes of a file: whose they are."""

import json
from pathlib import Path

import pytest

from geopos_diffusers.cli.box_options import read_image_boxes
from geopos_diffusers.errors import ConfigError


class TestOwners:
    @pytest.mark.parametrize(
        ("images", "row", "owner"),
        [
            (["im/a/x.png"], "a/x.png", "im/a/x.png"),
            (["im/a/x.png"], "x.png", "im/a/x.png"),
            (["im/a/x.png"], "./a/x.png", "im/a/x.png"),
            (["im/a/x.png"], "b/x.png", None),
            (["im/aa/x.png"], "a/x.png", None),
            (["im/a/xx.png"], "x.png", None),
            (["im/a/x.png", "im/b/x.png"], "b/x.png", "im/b/x.png"),
            (["im/b/../a/x.png"], "im/a/x.png", "im/b/../a/x.png"),
            (["x.png"], "here/x.png", "x.png"),
            (["x.png"], "there/x.png", None),
            (["x.png"], "{here}/x.png", "x.png"),
        ],
    )
    def test_a_row_belongs_to_the_image_whose_path_ends_so(self, tmp_path, monkeypatch, images, row, owner):
        here = tmp_path / "here"
        here.mkdir()
        monkeypatch.chdir(here)
        row = row.replace("{here}", str(here))
        rows = [{"file_name": row, "box": [0.1, 0.2, 0.3, 0.4]}, {"file_name": row, "box": [0.5, 0.2, 0.7, 0.4]}]
        (here / "boxes.jsonl").write_text("\n".join(map(json.dumps, rows)))
        paths = list(map(Path, images))
        if owner is None:
            with pytest.raises(ConfigError, match="holds no box of"):
                read_image_boxes("boxes.jsonl", paths)
        else:
            assert read_image_boxes("boxes.jsonl", paths) == {Path(owner): [(0.1, 0.2, 0.3, 0.4), (0.5, 0.2, 0.7, 0.4)]}

    @pytest.mark.parametrize(
        ("images", "names", "message"),
        [
            (["a/x.png", "b/x.png"], ["x.png"], "line 1: x.png may be a/x.png or b/x.png; give more of its path"),
            (["a/x.png"], ["a/x.png", "x.png"], "line 2: a/x.png may be x.png or a/x.png, and both have boxes"),
        ],
    )
    def test_rows_that_may_be_meant_for_another_image(self, tmp_path, images, names, message):
        rows = [{"file_name": name, "box": [0.1, 0.2, 0.3, 0.4]} for name in names]
        (tmp_path / "boxes.jsonl").write_text("\n".join(map(json.dumps, rows)))
        with pytest.raises(ConfigError, match=message):
            read_image_boxes(str(tmp_path / "boxes.jsonl"), list(map(Path, images)))

    @pytest.mark.parametrize(
        "row",
        [
            {"box": [0.1, 0.2, 0.3, 0.4], "boxes": None},
            {"box": None, "boxes": [[0.1, 0.2, 0.3, 0.4]]},
            {"file_name": None, "box": [0.1, 0.2, 0.3, 0.4]},
        ],
    )
    def test_a_null_is_no_box(self, tmp_path, row):
        (tmp_path / "boxes.jsonl").write_text(json.dumps(row))
        found = read_image_boxes(str(tmp_path / "boxes.jsonl"), [Path("x.png")])
        assert found == {Path("x.png"): [(0.1, 0.2, 0.3, 0.4)]}
