"""The main job from end to end: render hands, fine-tune the packaged model, draw, score, and write a page.

    python scripts/demo.py --output runs/demo

The packaged model has only seen hands in the middle of the image. It learns hands at all places and of all sizes, from
captions that do not say where. The geometry weights are told by their coordinates, which count from the hand's box.
Beside them are two controls: a bias for each of the same layers, which the geometry contains, and LoRA. All see the
same images in the same order, and all draw from the same prompts and noise. Each stage is a command; two run at a time,
and what they print goes to logs/.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from geopos_diffusers.command_line import Parser
from geopos_diffusers.files import write_json, write_text
from geopos_diffusers.finetuning.held_out_loss import image_losses, load_framed_images
from geopos_diffusers.finetuning.trained_parts import load_trained_parts
from geopos_diffusers.metrics.hand_judge import load_hand_judge
from geopos_diffusers.pipelines.loading import load_pipeline

from ..frames.data import read_images, read_rows
from ..frames.places import describe
from ..results import write_results
from .page import write_page
from .scores import ARM_NAMES, RENDERED, SCORES, summarise

MODEL = "hands64"
# The distribution of the experiment on frames (docs/frames.md).
DATA = shlex.split(
    "--size 64 --poses canonical --views palm back --max-rotation 15 --max-tilt 12 --backgrounds plain "
    "--placement anywhere --scale 0.35 0.8"
)
# The same for every arm.
TRAINING = shlex.split(
    "--cache-latents --cache-text-embeddings --train-batch-size 16 --lr-scheduler cosine --lr-warmup-steps 20 "
    "--use-ema --ema-decay 0.99 --report-to none"
)
# Each at the best of the rates that were tried on other hands. LoRA has about as many weights as the geometry.
ARMS = {
    "geometry": shlex.split(
        "--train geoconv --frame-column box --frame-window --frame-dropout 0.1 --shift-range 0 --learning-rate 0.3"
    ),
    "bias": shlex.split("--train bias --learning-rate 0.01"),
    "lora": shlex.split("--train lora --lora-rank 2 --learning-rate 0.01"),
}
SCALES = (0.25, 0.5, 0.75)  # of the geometry, between the base and the whole adapter
SLIDER_IMAGES = 8
WORKERS = 2
LOG_LINES = 15
GRID = 3  # places along each axis, of the first prompt


class Runner:
    """Runs commands as processes of one thread, several at a time, and keeps what they were and how long they took."""

    def __init__(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.logs, self.started = logs, time.perf_counter()
        self.stages: dict[str, dict] = {}

    def run(self, name: str, command: list[str]) -> None:
        """Run a command of `geopos`; SystemExit, after the end of its output, if it fails."""
        log = self.logs / f"{name.replace(' ', '-')}.txt"
        with self.stage(name, f"geopos {shlex.join(command)}"):
            with log.open("w", encoding="utf-8") as file:
                code = subprocess.run(
                    [sys.executable, "-m", "geopos_diffusers.cli.main", *command],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                ).returncode
            if code != 0:
                print("\n".join(log.read_text(encoding="utf-8").splitlines()[-LOG_LINES:]), file=sys.stderr)
                raise SystemExit(code)

    @contextmanager
    def stage(self, name: str, command: str | None = None) -> Iterator[None]:
        """Say when the block begins and ends, and keep how long it took; a block that fails is not kept."""
        start = self.say(name if command is None else f"{name}: {command}")
        yield
        self.stages[name] = {"command": command, "seconds": round(self.say(f"{name}: done") - start, 1)}

    def say(self, text: str) -> float:
        """Print `text` with the time since the start; returns the clock."""
        now = time.perf_counter()
        print(f"[{now - self.started:4.0f} s] {text}", flush=True)
        return now


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", default="runs/demo", help="folder of the run; what it holds is made anew (default: %(default)s)"
    )
    parser.add_argument(
        "--train-images",
        type=int,
        default=3000,
        aliases=["--hands"],
        help="hands to render for training (default: %(default)s)",
    )
    parser.add_argument(
        "--max-train-steps",
        type=int,
        default=300,
        aliases=["--steps"],
        help="fine-tuning steps of each arm (default: %(default)s)",
    )
    parser.add_argument(
        "--num-images",
        type=int,
        default=120,
        aliases=["--images"],
        help="images that each arm draws (default: %(default)s)",
    )
    parser.add_argument(
        "--validation-images",
        type=int,
        default=256,
        aliases=["--held-out"],
        help="images of the held-out loss (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1000, help="first seed of data, training and images")
    parser.add_argument("--results", metavar="FILE", help="JSON file to write for a page of results")
    args = parser.parse_args(argv)
    output, runner = Path(args.output), Runner(Path(args.output) / "logs")
    render(args, output, runner)
    write_prompts(output, args.num_images)
    # The first training encodes the images for all three; meanwhile the base is drawn.
    pool = ThreadPoolExecutor(WORKERS)
    try:
        for job in [pool.submit(run_arm, name, args, output, runner) for name in ("geometry", "base", "bias", "lora")]:
            job.result()
    finally:
        pool.shutdown(cancel_futures=True)
    score(args, output, runner)
    with runner.stage("places of all hands"):
        write_json(output / "places.json", places_of_hands(output, args.num_images))
    with runner.stage("held-out loss of all"):
        write_json(output / "held_out.json", held_out_losses(output, args.seed))
    summary = summarise(output, args.seed) | {
        "stages": runner.stages,
        "total_seconds": round(time.perf_counter() - runner.started, 1),
    }
    write_json(output / "summary.json", summary)
    write_page(output)
    if args.results is not None:
        runs = [{"variant": name, "seed": args.seed, "steps": summary["steps"]} for name in ARMS]
        settings = {"model": MODEL, "data": shlex.join(DATA), "arms": {name: shlex.join(ARMS[name]) for name in ARMS}}
        write_results(args.results, "demo", runs, settings, summary=summary)
    runner.say(f"{summary['verdict']}\nOpen {output / 'index.html'}")
    return 0


def render(args: argparse.Namespace, output: Path, runner: Runner) -> None:
    """Hands to train on, to measure the loss on, and to score against: one distribution, three seeds."""
    sizes = {"hands": args.train_images, "held_out": args.validation_images, "reference": 2 * args.num_images}
    for index, (folder, count) in enumerate(sizes.items()):
        options = ["--num-images", str(count), "--seed", str(args.seed + index), "--num-workers", str(WORKERS)]
        target = ["--output", str(output / folder), "--overwrite", "--quiet"]
        runner.run(f"render {folder}", ["data", "hands", *DATA, *options, *target])


def write_prompts(output: Path, count: int) -> None:
    """The captions and boxes of the first rendered reference hands: prompts with just the attributes of the reference.

    The slider's are the first of them; the grid has one prompt, and a box at each place.
    """
    rows = read_rows(output / "reference")[:count]
    prompts = [row["text"] + "\n" for row in rows]
    boxes = [json.dumps({"box": row["box"]}) + "\n" for row in rows]
    for name, lines in (("prompts.txt", prompts), ("boxes.jsonl", boxes)):
        write_text(output / name, "".join(lines))
        write_text(output / f"slider_{name}", "".join(lines[:SLIDER_IMAGES]))


def run_arm(name: str, args: argparse.Namespace, output: Path, runner: Runner) -> None:
    """Train (but for the base) and draw; of the geometry also draw at the slider's strengths, and at all places."""
    folder, seed, final = output / name, str(args.seed), str(output / name / "train" / "final")
    if name in ARMS:
        data = ["--dataset", str(output / "hands"), "--latents-folder", str(output), "--text-folder", str(output)]
        length = ["--max-train-steps", str(args.max_train_steps), "--checkpointing-steps", str(args.max_train_steps)]
        target = ["--output", str(folder / "train"), "--overwrite"]
        runner.run(f"{name} train", ["train", *ARMS[name], *length, *data, *TRAINING, "--seed", seed, *target])
    adapter = {"base": [], "lora": ["--lora", final]}.get(name, ["--geoconv", final])

    def draw(label: str, target: str, *options: str) -> None:
        target_options = ["--seed", seed, "--output", str(folder / target), "--overwrite"]
        runner.run(f"{name} draw{label}", ["generate", *adapter, *options, *target_options])

    def prompts(kind: str = "") -> list[str]:
        boxes = ["--boxes", str(output / f"{kind}boxes.jsonl")] if name == "geometry" else []
        return ["--prompts-file", str(output / f"{kind}prompts.txt"), *boxes]

    draw("", "images", *prompts())
    if name == "geometry":
        for scale in SCALES:
            draw(f" at {scale}", f"scale-{scale}", *prompts("slider_"), "--geoconv-scale", str(scale))
        draw(
            " at all places", "places", "--prompt", read_rows(output / "reference")[0]["text"], "--box-grid", str(GRID)
        )


def score(args: argparse.Namespace, output: Path, runner: Runner) -> None:
    """One report of all arms, the base first: it is what the others are compared with."""
    folders = [str(output / name / "images") for name in ARM_NAMES]
    options = ["--reference", str(output / "reference"), "--seed", str(args.seed), "--output", str(output / SCORES)]
    command = ["evaluate", "--images", *folders, "--names", *ARM_NAMES, *options, "--overwrite", "--quiet"]
    runner.run("score", command)


def places_of_hands(output: Path, count: int) -> dict[str, list[dict]]:
    """Where the hands of each arm's images are, and how many fingers they raise, by the package's judge.

    Those of the rendered reference stand beside them: what an ideal model would reach.
    """
    judge = load_hand_judge()
    folders = {name: output / name / "images" for name in ARM_NAMES} | {RENDERED: output / "reference"}
    return {name: describe(read_images(folder, count), judge) for name, folder in folders.items()}


def held_out_losses(output: Path, seed: int) -> dict[str, list[float]]:
    """Denoising losses of the base and of each arm on the same images, timesteps and noise; geometry in the boxes."""
    pixels, captions, boxes = load_framed_images(output / "held_out", 64, 64, "box")
    losses = {}
    for name in ("base", *ARMS):
        pipe = load_pipeline(MODEL)
        if name in ARMS:
            load_trained_parts(pipe, output / name / "train" / "final")
        told = boxes if name == "geometry" else None
        losses[name] = image_losses(pipe, pixels, captions, seed, boxes=told).tolist()
    return losses


if __name__ == "__main__":
    sys.exit(main())
