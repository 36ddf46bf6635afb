import json

import pytest
from PIL import Image

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.hand_attributes import HandAttributes
from geopos_diffusers.metrics.image_folder import list_images


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
        assert found.entries[0].attributes == HandAttributes(2, "back", "left", None)
        assert found.has_metadata

    def test_limit(self, folder):
        first = [picture.name for picture in list_images(folder, limit=3, seed=1).entries]
        assert first == sorted(first)
        assert len(set(first)) == 3
        assert first == [picture.name for picture in list_images(folder, limit=3, seed=1).entries]
        assert list_images(folder, limit=3).available == 5
        assert len(list_images(folder, limit=9).entries) == 5


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
