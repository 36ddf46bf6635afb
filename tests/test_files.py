"""Writes are whole or not at all."""

import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from geopos_diffusers import apply_geoconv, load_geoconv_weights, save_geoconv_weights
from geopos_diffusers.files import atomic_directory, atomic_path, write_json


def test_failed_write_keeps_the_old_file(tmp_path):
    target = tmp_path / "result.json"
    write_json(target, {"a": 1})
    before = target.read_bytes()
    with pytest.raises(OSError, match="disk full"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert target.read_bytes() == before
    assert os.listdir(tmp_path) == ["result.json"]


def test_failed_folder_keeps_the_old_folder(tmp_path):
    target = tmp_path / "images"
    with atomic_directory(target) as folder:
        (folder / "a.txt").write_text("a")
    with pytest.raises(KeyboardInterrupt), atomic_directory(target) as folder:
        (folder / "b.txt").write_text("b")
        raise KeyboardInterrupt
    assert os.listdir(target) == ["a.txt"]
    assert os.listdir(tmp_path) == ["images"]


def test_folder_is_replaced_as_a_whole(tmp_path):
    for name in ("a.txt", "b.txt"):
        with atomic_directory(tmp_path / "images") as folder:
            (folder / name).write_text(name)
    assert os.listdir(tmp_path / "images") == ["b.txt"]


def test_not_a_number_is_refused(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "result.json", {"loss": float("nan")})
    assert os.listdir(tmp_path) == []


class TestFullDisk:
    """safetensors' own error class must not get through: callers look for OSError."""

    def test_an_adapter(self, small_disk):
        model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3))
        apply_geoconv(model)
        path = save_geoconv_weights(model, small_disk)
        before = {file.name: file.read_bytes() for file in small_disk.iterdir()}
        larger = nn.Conv2d(1, 4096, 3)
        apply_geoconv(larger)
        with pytest.raises(OSError, match=r"geoconv_weights\.safetensors cannot be written: [^\n]+$"):
            save_geoconv_weights(larger, small_disk)
        assert {file.name: file.read_bytes() for file in small_disk.iterdir()} == before
        assert load_geoconv_weights(nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)), path).patched == ["0", "1"]

    def test_a_folder(self, small_disk):
        with (
            pytest.raises(OSError, match=r"checkpoint-1 cannot be written: [^\n]+$"),
            atomic_directory(small_disk / "checkpoint-1") as folder,
        ):
            save_file({"a": torch.zeros(10_000)}, folder / "weights.safetensors")
        assert os.listdir(small_disk) == []
