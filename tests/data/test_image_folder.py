import hashlib
import json
import os
from functools import partial

import pytest

from geopos_diffusers.cli.main import main
from geopos_diffusers.data.hands import HandOptions, make_draw_hands
from geopos_diffusers.data.image_folder import write_image_folder
from geopos_diffusers.errors import DataError

make_draw = partial(make_draw_hands, 16, 5, HandOptions())


def digest(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def failing_draw():
    draw = make_draw()

    def fail(start, stop):
        if start > 0:
            raise OSError(28, "No space left on device")
        return draw(start, stop)

    return fail


class TestBytes:
    def test_do_not_depend_on_the_number_of_workers(self, tmp_path):
        one = write_image_folder(make_draw, 40, tmp_path / "one", workers=1, progress=False)
        two = write_image_folder(make_draw, 40, tmp_path / "two", workers=2, progress=False)
        assert len(digest(one)) == 41
        assert digest(one) == digest(two)

    def test_a_longer_run_begins_with_the_same_images(self, tmp_path):
        short = write_image_folder(make_draw, 3, tmp_path / "short", progress=False)
        long = write_image_folder(make_draw, 36, tmp_path / "long", progress=False)
        for index in range(3):
            assert (short / f"{index:06d}.png").read_bytes() == (long / f"{index:06d}.png").read_bytes()


class TestFolder:
    def test_loads_with_datasets(self, tmp_path, monkeypatch):
        from datasets import load_dataset

        folder = write_image_folder(make_draw, 4, tmp_path / "hands", progress=False)
        data = load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache"))
        assert len(data) == 4
        assert data[0]["image"].size == (16, 16)
        rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        assert data["text"][:] == [row["text"] for row in rows]
        assert len(data[0]["keypoints"]) == 21
        assert set(rows[0]) == {
            *("file_name", "text", "fingers", "handedness", "view", "tone", "background", "pose", "keypoints", "box")
        }

    def test_an_error_leaves_nothing(self, tmp_path):
        with pytest.raises(OSError, match="No space"):
            write_image_folder(failing_draw, 40, tmp_path / "hands", progress=False)
        assert os.listdir(tmp_path) == []

    def test_an_error_keeps_what_was_there(self, tmp_path):
        folder = write_image_folder(make_draw, 2, tmp_path / "hands", progress=False)
        before = digest(folder)
        with pytest.raises(OSError, match="No space"):
            write_image_folder(failing_draw, 40, folder, overwrite=True, progress=False)
        assert digest(folder) == before
        assert os.listdir(tmp_path) == ["hands"]

    def test_does_not_write_into_a_full_folder(self, tmp_path):
        (tmp_path / "mine.txt").write_text("keep")
        with pytest.raises(DataError, match="not empty"):
            write_image_folder(make_draw, 1, tmp_path, progress=False)


class TestCommand:
    arguments = ("data", "hands", "--count", "2", "--size", "16", "--quiet", "--output")

    def test_writes(self, tmp_path, capsys):
        assert main([*self.arguments, str(tmp_path / "out"), "--views", "palm", "--fill", "0.7", "0.8"]) == 0
        rows = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
        assert [row["view"] for row in rows] == ["palm", "palm"]

    def test_dry_run_writes_nothing(self, tmp_path, capsys):
        assert main([*self.arguments, str(tmp_path / "out"), "--dry-run"]) == 0
        assert "would write 2 images" in capsys.readouterr().out
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize(
        ("extra", "message"),
        [
            (["--count", "0"], "count is 0"),
            (["--workers", "0"], "workers is 0"),
            (["--size", "3"], "size is 3"),
            (["--views", "top"], "views: top given"),
            (["--max-tilt", "-4"], "max_tilt is -4.0"),
        ],
    )
    def test_bad_options_are_one_line_and_exit_code_2(self, tmp_path, capsys, extra, message):
        assert main([*self.arguments, str(tmp_path / "out"), *extra]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert os.listdir(tmp_path) == []

    def test_output_that_is_not_empty_needs_overwrite(self, tmp_path, capsys):
        (tmp_path / "old.txt").write_text("old")
        assert main([*self.arguments, str(tmp_path)]) == 2
        assert "--overwrite" in capsys.readouterr().err
        assert main([*self.arguments, str(tmp_path), "--overwrite"]) == 0
        assert not (tmp_path / "old.txt").exists()
