"""Writes are whole or not at all."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from geopos_diffusers import apply_geoconv, load_geoconv_weights, save_geoconv_weights
from geopos_diffusers.files import atomic_directory, atomic_path, remove_leftovers, write_json


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


KILLED = """
import os, signal, sys
from geopos_diffusers.files import atomic_directory, atomic_path
with atomic_directory(sys.argv[1]) as folder:
    (folder / "weights.bin").write_bytes(bytes(1000))
    with atomic_path(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_while_writing(directory, file) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(directory), str(file)])
    assert done.returncode == -signal.SIGKILL


class TestLeftovers:
    def test_those_of_the_named_targets_are_removed(self, tmp_path):
        (tmp_path / "checkpoint-2").mkdir()
        for name in ("checkpoint-2", "checkpoint-12", "mine"):
            kill_while_writing(tmp_path / name, tmp_path / f"{name}.json")
        assert len(os.listdir(tmp_path)) == 7
        (tmp_path / ".checkpoint-notes").touch()
        remove_leftovers(tmp_path, r"checkpoint-\d+")
        left = sorted(os.listdir(tmp_path))
        assert [name.rpartition("-")[0] for name in left[:3]] == [".checkpoint", ".mine", ".mine"]
        assert left[3:] == ["checkpoint-2"]

    def test_a_folder_whose_successor_never_came_is_put_back(self, tmp_path):
        (tmp_path / ".final-abcd1234-old").mkdir()
        (tmp_path / ".final-abcd1234-old" / "a").write_text("only copy")
        (tmp_path / ".final-abcd1234").mkdir()
        remove_leftovers(tmp_path, "final")
        assert os.listdir(tmp_path) == ["final"]
        assert (tmp_path / "final" / "a").read_text() == "only copy"

    def test_no_folder(self, tmp_path):
        remove_leftovers(tmp_path / "none", "final")


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
