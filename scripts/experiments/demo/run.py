"""The main job from end to end: render hands, fine-tune the packaged model, draw, score, and write a page.

    python scripts/demo.py --output runs/demo

The geometry weights are trained beside two controls: a bias for each of the same layers, which the geometry contains,
and LoRA. All see the same images in the same order, and all draw from the same prompts and noise. Each stage is a
command; two run at a time, and what they print goes to logs/. The images are those of scripts/experiments/demo/data.py.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from geopos_diffusers.command_line import Parser
from geopos_diffusers.files import write_json, write_text
from geopos_diffusers.finetuning.held_out_loss import image_losses, load_images
from geopos_diffusers.finetuning.trained_parts import load_trained_parts
from geopos_diffusers.pipelines.loading import load_pipeline

from .page import write_page
from .scores import ARM_NAMES, SCORES, summarise

# The same for every arm, and the settings with which docs/results/trained_parts.md was measured.
TRAINING = shlex.split(
    "--cache-latents --train-batch-size 16 --lr-scheduler cosine --lr-warmup-steps 20 --snr-gamma 5 "
    "--use-ema --ema-decay 0.99 --report-to none"
)
# Each at its default rate, the best of a sweep on other hands (docs/results/trained_parts.md). LoRA has about as many
# weights as the geometry.
ARMS = {
    "geometry": shlex.split("--train geoconv"),
    "bias": shlex.split("--train bias"),
    "lora": shlex.split("--train lora --lora-rank 2"),
}
SCALES = (0.25, 0.5, 0.75)  # of the geometry, between the base and the whole adapter
SLIDER_IMAGES = 8
WORKERS = 2
LOG_LINES = 15
DATA_SCRIPT = os.path.relpath(Path(__file__).with_name("data.py"))
PROGRAMS = {"geopos": ["-m", "geopos_diffusers.cli.main"], "python": []}


class Runner:
    """Runs commands as processes of one thread, several at a time, and keeps what they were and how long they took."""

    def __init__(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.logs, self.started = logs, time.perf_counter()
        self.stages: dict[str, dict] = {}

    def run(self, name: str, command: list[str]) -> None:
        """Run a command of `geopos` or `python`; SystemExit, after the end of its output, if it fails."""
        start = self.say(f"{name}: {shlex.join(command)}")
        program, *arguments = command
        log = self.logs / f"{name.replace(' ', '-')}.txt"
        with log.open("w", encoding="utf-8") as file:
            code = subprocess.run(
                [sys.executable, *PROGRAMS[program], *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            ).returncode
        if code != 0:
            print("\n".join(log.read_text(encoding="utf-8").splitlines()[-LOG_LINES:]), file=sys.stderr)
            raise SystemExit(code)
        seconds = round(self.say(f"{name}: done") - start, 1)
        self.stages[name] = {"command": shlex.join(command), "seconds": seconds}

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
    start = runner.say("held-out loss of all")
    write_json(output / "held_out.json", held_out_losses(output, args.seed))
    runner.stages["held-out loss of all"] = {"command": None, "seconds": round(runner.say("done") - start, 1)}
    summary = summarise(output, args.seed) | {
        "stages": runner.stages,
        "total_seconds": round(time.perf_counter() - runner.started, 1),
    }
    write_json(output / "summary.json", summary)
    write_page(output)
    runner.say(f"{summary['verdict']}\nOpen {output / 'index.html'}")
    return 0


def render(args: argparse.Namespace, output: Path, runner: Runner) -> None:
    """Hands to train on, to measure the loss on, and to score against: one distribution, three seeds."""
    sizes = {"hands": args.train_images, "held_out": args.validation_images, "reference": 2 * args.num_images}
    for index, (folder, count) in enumerate(sizes.items()):
        options = ["--num-images", str(count), "--seed", str(args.seed + index), "--num-workers", str(WORKERS)]
        runner.run(f"render {folder}", ["python", DATA_SCRIPT, *options, "--output", str(output / folder)])


def write_prompts(output: Path, count: int) -> None:
    """The captions of the first rendered reference hands: prompts with just the attributes of the reference."""
    rows = (output / "reference" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = [json.loads(row)["text"] + "\n" for row in rows[:count]]
    write_text(output / "prompts.txt", "".join(prompts))
    write_text(output / "slider_prompts.txt", "".join(prompts[:SLIDER_IMAGES]))


def run_arm(name: str, args: argparse.Namespace, output: Path, runner: Runner) -> None:
    """Train (but for the base) and draw; of the geometry also draw at the strengths of the slider."""
    folder, seed, final = output / name, str(args.seed), str(output / name / "train" / "final")
    if name in ARMS:
        data = ["--dataset", str(output / "hands"), "--latents-folder", str(output), *TRAINING]
        length = ["--max-train-steps", str(args.max_train_steps), "--checkpointing-steps", str(args.max_train_steps)]
        target = ["--output", str(folder / "train"), "--overwrite"]
        runner.run(f"{name} train", ["geopos", "train", *ARMS[name], *length, *data, "--seed", seed, *target])
    adapter = {"base": [], "lora": ["--lora", final]}.get(name, ["--geoconv", final])
    images = str(folder / "images")
    prompts = ["--prompts-file", str(output / "prompts.txt")]
    runner.run(
        f"{name} draw", ["geopos", "generate", *adapter, *prompts, "--seed", seed, "--output", images, "--overwrite"]
    )
    for scale in SCALES if name == "geometry" else ():
        prompts = ["--prompts-file", str(output / "slider_prompts.txt"), "--geoconv-scale", str(scale)]
        target = ["--output", str(folder / f"scale-{scale}"), "--overwrite"]
        runner.run(f"{name} draw at {scale}", ["geopos", "generate", *adapter, *prompts, "--seed", seed, *target])


def score(args: argparse.Namespace, output: Path, runner: Runner) -> None:
    """One report of all arms, the base first: it is what the others are compared with."""
    folders = [str(output / name / "images") for name in ARM_NAMES]
    options = ["--reference", str(output / "reference"), "--seed", str(args.seed), "--output", str(output / SCORES)]
    command = ["geopos", "evaluate", "--images", *folders, "--names", *ARM_NAMES, *options, "--overwrite", "--quiet"]
    runner.run("score", command)


def held_out_losses(output: Path, seed: int) -> dict[str, list[float]]:
    """Denoising losses of the base and of each arm on the same images, timesteps and noise."""
    pixels, captions = load_images(output / "held_out", 64, 64)
    losses = {}
    for name in ("base", *ARMS):
        pipe = load_pipeline("hands64")
        if name in ARMS:
            load_trained_parts(pipe, output / name / "train" / "final")
        losses[name] = image_losses(pipe, pixels, captions, seed).tolist()
    return losses


if __name__ == "__main__":
    sys.exit(main())
