"""The ways in which a training is disturbed.

Each row disturbs it and yields what it did, and the line that the command ended with, if it ended with one.
"""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tqdm import tqdm

from geopos_diffusers.training.checkpoints import list_checkpoints

from .bench import Bench, Failed, reach

MOMENTS = {"start": "while starting", "step": "in a step", "checkpoint": "while a checkpoint was written"}
DAMAGES = {
    "cut in half": lambda data, draw: data[: len(data) // 2],
    "one bit of it flipped": lambda data, draw: flip(data, draw.randrange(8 * len(data))),
    "empty": lambda data, draw: b"",
}


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def kills(bench: Bench) -> Iterator[tuple[str, str]]:
    """SIGKILL while it starts, in a step, or while it writes a checkpoint; begun again until it is finished."""
    folder, moments, half_written = bench.work / "kills-0", Counter(), 0
    for number in tqdm(range(bench.kills), "kills"):
        moment = bench.draw.choice(("start", "step", "checkpoint", "checkpoint"))
        process = bench.start(folder)
        if not reach(bench, moment, folder, process):  # it was finished before
            bench.must_end_equal(bench.end(process, folder), folder)
            folder = bench.work / f"kills-{number}"
            process = bench.start(folder)
            reach(bench, moment, folder, process)
        process.kill()
        process.wait()
        moments[moment] += 1
        half_written += any(folder.glob(".checkpoint-*"))
    bench.must_end_equal(bench.run(folder), folder)
    counts = ", ".join(f"{moments[name]} {text}" for name, text in MOMENTS.items())
    yield f"{bench.kills} SIGKILLs: {counts} ({half_written} left a half-written one)", ""


def full_disk(bench: Bench) -> Iterator[tuple[str, str]]:
    """A disk that is full in the midst of the run, of three sizes; then it is made larger."""
    size = sum(file.stat().st_size for file in list_checkpoints(bench.reference)[0].rglob("*"))
    for number in range(3):
        room = int(size * bench.draw.uniform(0.5, 4))
        with mounted(bench.work / f"full-disk-{number}", room) as disk:
            folder = bench.work / f"full-disk-{number}" / "run"
            if disk:
                line = bench.run(folder).refused()
                subprocess.run(["mount", "-o", "remount,size=1g", str(folder.parent)], check=True)
                how = f"a disk of {room / 2**20:.1f} MiB"
            else:
                limit = int(size * bench.draw.uniform(0.1, 0.5))
                line = bench.run(folder, partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))).refused()
                how = f"files limited to {limit / 2**20:.2f} MiB (no right to mount a disk)"
            bench.must_end_equal(bench.run(folder), folder)
        yield how, line


def read_only(bench: Bench) -> Iterator[tuple[str, str]]:
    """A folder that can only be read when the run is to be continued; then it can be written again."""
    with mounted(bench.work / "read-only", 2**30) as disk:
        if not disk:
            yield "skipped: needs the right to mount a disk", ""
            return
        folder = bench.work / "read-only" / "run"
        folder.mkdir()
        bench.half(folder)
        subprocess.run(["mount", "-o", "remount,ro", str(folder.parent)], check=True)
        line = bench.end(bench.start(bench.work / "read-only-start", output=folder), bench.work / "read-only-start")
        subprocess.run(["mount", "-o", "remount,rw", str(folder.parent)], check=True)
        line = line.refused()
        bench.must_end_equal(bench.run(folder), folder)
    yield "a disk that is read-only when the run is continued", line


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[bool]:
    """A disk of so many bytes in memory at `folder`, and whether it could be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = sys.platform == "linux" and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", str(folder)], check=True)


def vanished_data(bench: Bench) -> Iterator[tuple[str, str]]:
    """The folder of images goes away in the midst of the run, and before it is continued; then it is back."""
    data, folder = bench.work / "vanishing", bench.work / "vanished-data"
    shutil.copytree(str(bench.options["dataset"]), data)
    process = bench.start(folder, dataset=data)
    reach(bench, "step", folder, process)
    data.rename(bench.work / "away")
    ended = bench.end(process, folder)
    if ended.code == 0:
        bench.must_end_equal(ended, folder)
        yield "images gone in the midst of the run (they were in memory)", ""
        shutil.rmtree(folder)
        folder.mkdir()
        bench.half(folder)
    else:
        yield "images gone in the midst of the run", ended.refused()
    line = bench.run(folder, dataset=data).refused()
    (bench.work / "away").rename(data)
    bench.must_end_equal(bench.run(folder, dataset=data), folder)
    yield "images gone when the run is continued", line


def two_runs(bench: Bench) -> Iterator[tuple[str, str]]:
    """A second run in the folder of one that is at work."""
    folder, second = bench.work / "two-runs", bench.work / "two-runs-second"
    process = bench.start(folder)
    if not reach(bench, "step", folder, process):
        raise Failed("the first run ended too early")
    os.kill(process.pid, signal.SIGSTOP)  # it is still at work when the second one looks
    line = bench.end(bench.start(second, output=folder), second).refused()
    os.kill(process.pid, signal.SIGCONT)
    bench.must_end_equal(bench.end(process, folder), folder)
    yield "a second run in the same folder", re.sub(r"process \d+ on [^\s)]+", "process N on HOST", line)


def damaged_cache(bench: Bench) -> Iterator[tuple[str, str]]:
    """A file of cached latents that is damaged; then it is removed."""
    cache = bench.work / "latents"
    more = {"cache_latents": "true", "latents_folder": cache}
    first = bench.work / "damaged-cache"
    bench.must_end_equal(bench.run(first, **more), first)
    for number, (how, damage) in enumerate(DAMAGES.items()):
        files = sorted(cache.rglob("*.safetensors"))
        file, folder = bench.draw.choice(files), bench.work / f"damaged-cache-{number}"
        whole = file.read_bytes()
        file.write_bytes(damage(whole, bench.draw))
        ended, line = bench.run(folder, **more), ""
        if ended.code:
            line = ended.refused()
            file.unlink()
            ended = bench.run(folder, **more)
        bench.must_end_equal(ended, folder)
        file.write_bytes(whole)
        yield f"a file of latents {how}", line


def damaged_checkpoint(bench: Bench) -> Iterator[tuple[str, str]]:
    """A file of the newest checkpoint that is damaged; then the one before it is named."""
    names = sorted(path.name for path in (list_checkpoints(bench.reference)[0] / "training_state").iterdir())
    for name in names:
        how = bench.draw.choice(sorted(DAMAGES))
        folder = bench.work / f"damaged-checkpoint-{name}"
        folder.mkdir()
        bench.half(folder)
        before, newest = list_checkpoints(folder)[-2:]
        file = newest / "training_state" / name
        file.write_bytes(DAMAGES[how](file.read_bytes(), bench.draw))
        line = bench.run(folder).refused()
        bench.must_end_equal(bench.run(folder, resume_from_checkpoint=before.name), folder)
        yield f"{name} {how}", line


def not_a_number(bench: Bench) -> Iterator[tuple[str, str]]:
    """A learning rate at which the loss overflows; then the run is begun anew with its own rate."""
    for precision in ("no", "bf16"):
        folder = bench.work / f"not-a-number-{precision}"
        line = bench.run(folder, learning_rate=1e9, mixed_precision=precision).refused()
        if (folder / "final").exists():
            raise Failed("final/ was written")
        bench.must_end_equal(bench.run(folder, overwrite="true"), folder)
        yield f"learning rate 1e9, mixed precision {precision}", line


ROWS = {
    "kills": kills,
    "full-disk": full_disk,
    "read-only": read_only,
    "vanished-data": vanished_data,
    "two-runs": two_runs,
    "damaged-cache": damaged_cache,
    "damaged-checkpoint": damaged_checkpoint,
    "not-a-number": not_a_number,
}
