"""A run's folder belongs to one run at a time, and to no dead one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from geopos_diffusers.cli.main import main
from geopos_diffusers.errors import ConfigError
from geopos_diffusers.folder_lock import LOCK_NAME, locked_folder

HOLD = """
import sys
from geopos_diffusers.folder_lock import locked_folder
with locked_folder(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_process(folder: Path) -> Iterator[subprocess.Popen]:
    """Another process that holds the folder until its input ends."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()


def test_the_second_is_refused_and_told_who_holds_it(tmp_path):
    with (
        other_process(tmp_path) as process,
        pytest.raises(ConfigError, match=rf"is in use by another run \(process {process.pid} on .+\); wait for it"),
        locked_folder(tmp_path),
    ):
        pass
    with locked_folder(tmp_path):  # the other one has ended
        assert os.listdir(tmp_path) == [LOCK_NAME]
    assert os.listdir(tmp_path) == []


def test_within_one_process_too(tmp_path):
    with (
        locked_folder(tmp_path),
        pytest.raises(ConfigError, match=f"process {os.getpid()} on"),
        locked_folder(tmp_path),
    ):
        pass


def test_a_killed_process_holds_nothing(tmp_path):
    with other_process(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert os.listdir(tmp_path) == [LOCK_NAME]
        with locked_folder(tmp_path):
            assert (tmp_path / LOCK_NAME).read_text().startswith(f"process {os.getpid()} on ")


def test_an_error_frees_it(tmp_path):
    with pytest.raises(ValueError, match="stop"), locked_folder(tmp_path / "new"):
        raise ValueError("stop")
    assert os.listdir(tmp_path / "new") == []


def test_training_refuses_a_folder_in_use(tmp_path, capsys):
    with other_process(tmp_path) as process:
        options = ("--dataset", str(tmp_path), "--output_dir", str(tmp_path), "--max_train_steps", "1")
        assert main(["train", *options]) == 2
        assert os.listdir(tmp_path) == [LOCK_NAME]
    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert f"{tmp_path} is in use by another run (process {process.pid} on" in errors[0]
