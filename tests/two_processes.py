"""`geopos train` on two real CPU processes, to its end and from its middle."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

PARALLEL = ("--cpu", "--num_processes", "2")
SHARDED = ("--num_processes", "2", "--use_fsdp", "--fsdp_version", "2")
ZERO = ("--num_processes", "2", "--use_deepspeed", "--zero_stage", "2")


def train_on_two(kind: str, folder: Path, launcher: tuple[str, ...], **options) -> list[dict]:
    """Four steps with a checkpoint after each second one, into `folder`. Returns the lines of losses.jsonl."""
    options = {"max_train_steps": 4, "checkpointing_steps": 2, "train_batch_size": 2, "report_to": "none", **options}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "geopos_diffusers.cli.main", "train", kind, *launcher, *words]
    done = subprocess.run([*command, "--output", str(folder)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((folder / "summary.json").read_text())["processes"] == 2
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def check_continued(kind: str, tmp_path: Path, launcher: tuple[str, ...], **options) -> list[dict]:
    """Train, and again as if killed after step 2: the same losses. Returns them; the run is in tmp_path / "whole"."""
    expected = train_on_two(kind, tmp_path / "whole", launcher, **options)
    assert [line["step"] for line in expected] == [1, 2, 3, 4]
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoint-4")
    assert train_on_two(kind, tmp_path / "cut", launcher, **options) == expected
    return expected
