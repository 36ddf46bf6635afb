"""A training to disturb: started as a command, compared bit for bit with the same one undisturbed."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file

from geopos_diffusers.command_line import kebab
from geopos_diffusers.training.checkpoints import list_checkpoints

TRAIN = (sys.executable, "-m", "geopos_diffusers.cli.main", "train")
ERROR = "geopos train: error: "


class Failed(Exception):
    """A row did not do what it must."""


@dataclass(frozen=True)
class Ended:
    """How a command ended. line: what it said after `geopos train: error:`."""

    code: int
    line: str
    output: str

    def refused(self) -> str:
        """The line of a command that ended with exit code 2 and one clear line."""
        if self.code != 2 or not self.line or "Traceback" in self.output:
            raise Failed(f"exit code {self.code}: {self.output.strip()[-300:]}")
        return self.line


@dataclass
class Bench:
    """A training to disturb. options: of its command. reference: the folder that it left undisturbed.

    startup, step, writing: seconds until its first step, of a step, and of writing a checkpoint.
    """

    work: Path
    options: dict[str, object]
    draw: random.Random
    kills: int
    reference: Path = Path()
    startup: float = 0.0
    step: float = 0.0
    writing: float = 0.0
    started: list[subprocess.Popen] = field(default_factory=list)

    def start(self, folder: Path, before: Callable[[], None] | None = None, **more: object) -> subprocess.Popen:
        options = {**self.options, "output": folder, **more}
        words = [word for name, value in options.items() for word in (kebab(name), str(value))]
        log = (folder.parent / f"{folder.name}.log").open("w")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(
            [*TRAIN, *words], stdout=log, stderr=subprocess.STDOUT, env=environment, preexec_fn=before
        )
        log.close()
        self.started.append(process)
        return process

    def end(self, process: subprocess.Popen, folder: Path) -> Ended:
        code = process.wait(timeout=600)
        output = (folder.parent / f"{folder.name}.log").read_text()
        lines = [part for line in output.splitlines() for part in line.split("\r") if part.startswith(ERROR)]
        return Ended(code, lines[0].removeprefix(ERROR) if len(lines) == 1 else "", output)

    def run(self, folder: Path, before: Callable[[], None] | None = None, **more: object) -> Ended:
        return self.end(self.start(folder, before, **more), folder)

    def must_end_equal(self, ended: Ended, folder: Path) -> None:
        if ended.code != 0:
            raise Failed(f"exit code {ended.code}: {ended.output.strip()[-300:]}")
        if differing := differences(self.reference, folder):
            raise Failed(f"{len(differing)} differences, such as {differing[0]}")

    def half(self, folder: Path) -> None:
        """Lay down the first half of the undisturbed run's checkpoints, as a run that was stopped leaves them."""
        checkpoints = list_checkpoints(self.reference)
        for checkpoint in checkpoints[: len(checkpoints) // 2]:
            shutil.copytree(checkpoint, folder / checkpoint.name)
        shutil.copy(self.reference / "losses.jsonl", folder)


def differences(first: Path, second: Path) -> list[str]:
    """What two finished runs do not have in common, bit for bit: weights, newest state, losses; and leftovers."""
    found = [] if (first / "losses.jsonl").read_bytes() == (second / "losses.jsonl").read_bytes() else ["losses.jsonl"]
    contents = []
    for folder in (first, second):
        newest = list_checkpoints(folder)[-1]
        files = [*(folder / "final").rglob("*.safetensors"), *newest.rglob("*.safetensors")]
        contents.append(
            {f"{file.relative_to(folder)} {name}": value for file in files for name, value in load_file(file).items()}
        )
    names = sorted({*contents[0], *contents[1]})
    found += [name for name in names if not same(contents[0].get(name), contents[1].get(name))]
    return found + [f"{path.name} is left over" for path in second.glob(".*")]


def same(first: torch.Tensor | None, second: torch.Tensor | None) -> bool:
    return first is not None and second is not None and torch.equal(first, second)


def reach(bench: Bench, moment: str, folder: Path, process: subprocess.Popen) -> bool:
    """Wait for a random instant of a kind. Returns False if the process ended before."""
    if moment == "start":
        time.sleep(bench.draw.uniform(0, bench.startup))
        return process.poll() is None
    if moment == "step":
        log, changes = folder / "losses.jsonl", bench.draw.randint(1, 20)
        seen = stamp(log)
        while changes:
            if process.poll() is not None:
                return False
            time.sleep(0.001)
            changes -= stamp(log) != seen
            seen = stamp(log)
        time.sleep(bench.draw.uniform(0, bench.step))
        return process.poll() is None
    while not any(folder.glob(".checkpoint-*")) or process.poll() is not None:
        if process.poll() is not None:
            return False
    time.sleep(bench.draw.uniform(0, bench.writing))
    return process.poll() is None


def stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return status.st_ino, status.st_size


def undisturbed(bench: Bench) -> None:
    """Run the training in peace, and note how long its parts take."""
    bench.reference = bench.work / "undisturbed"
    began = time.perf_counter()
    process = bench.start(bench.reference)
    while not stamp(bench.reference / "losses.jsonl")[1] and process.poll() is None:
        time.sleep(0.001)
    bench.startup = time.perf_counter() - began
    began = time.perf_counter()
    while not (folders := list(bench.reference.glob(".checkpoint-*"))) and process.poll() is None:
        pass
    writing = time.perf_counter()
    while folders and folders[0].exists():
        pass
    bench.writing = time.perf_counter() - writing
    bench.step = (writing - began) / int(str(bench.options["checkpointing_steps"]))
    bench.must_end_equal(bench.end(process, bench.reference), bench.reference)


def small_pipeline(folder: Path) -> Path:
    """The packaged pipeline with a narrow UNet of random weights."""
    from geopos_diffusers import load_pipeline

    torch.manual_seed(0)
    pipe = load_pipeline("hands64")
    narrow = {"block_out_channels": (32, 32, 32)}
    pipe.unet = type(pipe.unet).from_config({**pipe.unet.config, **narrow})
    pipe.save_pretrained(folder)
    return folder


def rendered_hands(folder: Path) -> Path:
    words = ["data", "hands", "--num-images", "12", "--size", "64", "--seed", "0", "--output", str(folder)]
    subprocess.run([sys.executable, "-m", "geopos_diffusers.cli.main", *words], check=True)
    return folder
