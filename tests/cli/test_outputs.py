"""What commands write over: nothing without --overwrite, and then no more than they say."""

import pytest
from commands import refused
from PIL import Image

from geopos_diffusers.adapters.files import WEIGHTS_NAME
from geopos_diffusers.cli.main import main
from geopos_diffusers.errors import DataError
from geopos_diffusers.files import check_output


@pytest.fixture
def output(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    return folder


class TestPatch:
    def test_keeps_what_is_there(self, model, output, capsys):
        (output / WEIGHTS_NAME).write_bytes(b"weeks of training")
        assert "is not empty" in refused(capsys, "patch", "--model", model, "--output", str(output))
        assert (output / WEIGHTS_NAME).read_bytes() == b"weeks of training"

    def test_overwrite_replaces_the_adapter_alone(self, model, output):
        (output / WEIGHTS_NAME).write_bytes(b"old")
        assert main(["patch", "--model", model, "--output", str(output), "--overwrite"]) == 0
        assert (output / WEIGHTS_NAME).stat().st_size > 1000
        assert (output / "mine.txt").read_text() == "mine"

    def test_a_mistake_loses_nothing(self, model, output, capsys):
        (output / WEIGHTS_NAME).write_bytes(b"old")
        options = ["--target-modules", "conv_inn", "--output", str(output), "--overwrite"]
        refused(capsys, "patch", "--model", model, *options)
        assert (output / WEIGHTS_NAME).read_bytes() == b"old"


class TestConvert:
    def test_keeps_what_is_there(self, model, output, tmp_path, capsys):
        taps = str(tmp_path / "taps")
        assert main(["patch", "--model", model, "--basis", "taps", "--output", taps]) == 0
        options = [taps, "--model", model, "--size", "32", "--output", str(output)]
        assert "is not empty" in refused(capsys, "convert", *options)
        assert main(["convert", *options, "--overwrite"]) == 0
        assert (output / WEIGHTS_NAME).is_file()
        assert (output / "mine.txt").read_text() == "mine"


class TestEvaluate:
    def test_keeps_what_is_there(self, tmp_path, output, capsys):
        (tmp_path / "images").mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
        (output / "evaluation.json").write_text("{}")
        folders = ["--images", str(tmp_path / "images"), "--reference", str(tmp_path / "images")]
        assert "is not empty" in refused(capsys, "evaluate", *folders, "--output", str(output))
        assert (output / "evaluation.json").read_text() == "{}"


class TestData:
    def test_keeps_what_is_there(self, output, capsys):
        assert "is not empty" in refused(capsys, "data", "hands", "--count", "1", "--output", str(output))
        assert (output / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_no_folder(tmp_path, overwrite):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file; give a folder"):
        check_output(tmp_path / "file", overwrite)


def test_the_home_folder_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(DataError, match="holds the working or the home folder"):
        check_output(tmp_path, overwrite=True)
