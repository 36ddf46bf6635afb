"""metadata.jsonl: what counts as a line and as a file of the folder, in training and in scoring alike."""

import json

import pytest
from PIL import Image

from geopos_diffusers.cli.generate import read_prompts
from geopos_diffusers.errors import DataError
from geopos_diffusers.finetuning.image_text_data import load_image_text
from geopos_diffusers.metrics.image_folder import list_images


def write(folder, *rows, prefix="", end="\n"):
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "0.png")
    text = prefix + end.join(json.dumps(row, ensure_ascii=False) for row in rows) + end
    (folder / "metadata.jsonl").write_bytes(text.encode())
    return folder


class TestFilesOfTheFolder:
    @pytest.mark.parametrize("name", ["../outside.png", "/outside.png", "sub/../../outside.png"])
    def test_others_are_refused(self, tmp_path, name):
        Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
        name = str(tmp_path / "outside.png") if name.startswith("/") else name
        folder = write(tmp_path / "data", {"file_name": "0.png", "text": "a"}, {"file_name": name, "text": "b"})
        for read in (lambda: load_image_text(str(folder), 8), lambda: list_images(folder)):
            with pytest.raises(DataError, match=r"line 2: file_name '.*outside\.png' is outside the folder"):
                read()

    def test_others_are_refused_in_csv_too(self, tmp_path):
        (tmp_path / "metadata.csv").write_text("file_name,text\n../outside.png,a\n")
        with pytest.raises(DataError, match=r"metadata\.csv, line 2: file_name '\.\./outside\.png' is outside"):
            load_image_text(str(tmp_path), 8)

    def test_dots_within_a_name_are_no_step_up(self, tmp_path):
        folder = write(tmp_path / "data", {"file_name": "a..b.png", "text": "a"})
        (folder / "0.png").rename(folder / "a..b.png")
        assert len(load_image_text(str(folder), 8)) == len(list_images(folder).entries) == 1


class TestLines:
    CAPTION = "one hand\u2028two\u2029three\x85four\x0bfive"

    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("prefix", ["", "\ufeff"])
    def test_line_feeds_alone_end_one_and_a_byte_order_mark_is_no_text(self, tmp_path, prefix, end):
        rows = [{"file_name": "0.png", "text": self.CAPTION}, {"file_name": "0.png", "text": "b"}]
        folder = write(tmp_path / "data", *rows, prefix=prefix, end=end)
        assert [*load_image_text(str(folder), 8).captions] == [self.CAPTION, "b"]
        found = list_images(folder)
        assert (len(found.entries), found.repeated) == (1, 1)
        assert found.entries[0].text == self.CAPTION

    def test_csv_with_a_byte_order_mark(self, tmp_path):
        Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
        text = f"file_name,text\n0.png,{self.CAPTION}\n"
        (tmp_path / "metadata.csv").write_text(text, encoding="utf-8-sig")
        assert [*load_image_text(str(tmp_path), 8).captions] == [self.CAPTION]

    def test_files_of_prompts(self, tmp_path):
        (tmp_path / "prompts.txt").write_text(f"{self.CAPTION}\nb\n", encoding="utf-8-sig")
        assert read_prompts(None, str(tmp_path / "prompts.txt")) == [self.CAPTION, "b"]
