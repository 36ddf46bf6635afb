"""What does `geopos train` do when it is killed, its disk is full, its data vanishes, or its files are damaged?

    python scripts/stress_training.py --rows kills full-disk --kills 20

Trains a small pipeline once undisturbed. Then each row disturbs the same training, and it passes in one of two ways:
the final weights, the whole state and the log of losses are those of the undisturbed run to the last bit; or the
command ended with exit code 2 and one line that says why, and, when the cause was mended, the same command ended in
those weights. Writes <output>.json and the table <output>.md.
"""

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from experiments.page import markdown_table
from experiments.results import write_results
from safetensors.torch import load_file
from tqdm import tqdm

from geopos_diffusers.command_line import Parser, kebab
from geopos_diffusers.files import write_text
from geopos_diffusers.training.checkpoints import list_checkpoints

TRAIN = (sys.executable, "-m", "geopos_diffusers.cli.main", "train")
ERROR = "geopos train: error: "
DAMAGES = {
    "cut in half": lambda data, draw: data[: len(data) // 2],
    "one bit of it flipped": lambda data, draw: flip(data, draw.randrange(8 * len(data))),
    "empty": lambda data, draw: b"",
}


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


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# --- rows: each disturbs the training and yields what it did and the line that the command ended with, if any --------


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


MOMENTS = {"start": "while starting", "step": "in a step", "checkpoint": "while a checkpoint was written"}


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
    reach(bench, "step", folder, process)
    os.kill(process.pid, signal.SIGSTOP)  # it is still at work when the second one looks
    line = bench.end(bench.start(second, output=folder), second).refused()
    os.kill(process.pid, signal.SIGCONT)
    bench.must_end_equal(bench.end(process, folder), folder)
    yield "a second run in the same folder", re.sub(r"process \d+ on \S+", "process N on HOST", line)


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


def disturb(bench: Bench, rows: list[str]) -> list[dict]:
    """What became of each case of each row."""
    results = []
    for row in rows:
        print(f"{row} ...", flush=True)
        try:
            for case, line in ROWS[row](bench):
                passed = None if case.startswith("skipped") else True
                results.append({"variant": row, "case": case, "passed": passed, "message": line})
        except Failed as error:
            results.append({"variant": row, "case": "failed", "passed": False, "message": str(error)})
    for result in results:  # folders of this machine and run
        result["message"] = result["message"].replace(str(bench.work), "WORK").replace(str(bench.work.parent), "...")
    return results


def outcome(result: dict) -> str:
    if result["passed"] is None:
        return "-"
    if not result["passed"]:
        return "**failed**"
    return "refused, then equal to the last bit" if result["message"] else "equal to the last bit"


def page(results: dict) -> str:
    cells = [
        (run["variant"], run["case"], outcome(run), f"`{run['message']}`" if run["message"] else "")
        for run in results["runs"]
    ]
    intro = (
        "# Disturbed trainings\n\nA training of "
        f"{results['settings']['steps']} steps of a small pipeline with geometry weights, LoRA and a moving average is "
        "disturbed in the ways below. A row passes if the final weights, the whole state of the newest checkpoint and "
        "the log of losses are those of the undisturbed run to the last bit, or if the command ended with exit code 2 "
        "and one line, and the same command, once the cause was mended, ended in those weights. Seed "
        f"{results['settings']['seed']}; {results['date']}; {results['machine']['processor']}, one thread.\n\n"
        f"```bash\n{results['command']}\n```\n\n"
    )
    return intro + markdown_table(("row", "what was done", "outcome", "message"), cells) + "\n"


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


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--kills", type=int, default=20, help="SIGKILLs of the row kills (default: 20)")
    parser.add_argument("--steps", type=int, default=60, help="of the training (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and damages (default: 0)")
    parser.add_argument("--dataset", help="image folder with captions; by default 12 rendered hands")
    parser.add_argument("--work", default="runs/stress", help="folder for the trainings (default: runs/stress)")
    parser.add_argument("--output", help="path of the results without suffix, such as docs/results/stress_training")
    args = parser.parse_args()

    work = Path(args.work).resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    options = {
        "model": small_pipeline(work / "model"),
        "dataset": args.dataset or rendered_hands(work / "hands"),
        "train": "geoconv+lora",
        "train_batch_size": 2,
        "max_train_steps": args.steps,
        "checkpointing_steps": 5,
        "use_ema": "true",
        "report_to": "none",
    }
    bench = Bench(work, options, random.Random(args.seed), args.kills)
    try:
        undisturbed(bench)
        runs = disturb(bench, args.rows)
    finally:
        for process in bench.started:
            process.kill()
    settings = {"steps": args.steps, "seed": args.seed, "kills": args.kills, "rows": args.rows}
    print(markdown_table(("row", "what was done", "outcome"), [(r["variant"], r["case"], outcome(r)) for r in runs]))
    for run in runs:
        if run["passed"] is False:
            print(f"{run['variant']}: {run['message']}", file=sys.stderr)
    if args.output:
        results = write_results(f"{args.output}.json", "stress_training", runs, settings)
        write_text(f"{args.output}.md", page(json.loads(json.dumps(results))))
    sys.exit(any(run["passed"] is False for run in runs))


if __name__ == "__main__":
    main()
