"""Which learning rate suits a part: fine-tune at several rates, compare losses on held-out images, draw the curve.

    python scripts/sweep_learning_rate.py --validation-dataset validation --rates 1e-2 3e-2 1e-1 --output runs/s \
        --config configs/finetune_hands.yaml --dataset hands --train geoconv

Takes every option of `geopos train` beside its own. The grid grows by its own factor until the best rate has a worse
one on both sides; a rate at which the training diverges is worse than all others. Writes sweep.json and sweep.png; a
run that is finished is not made again.
"""

import argparse
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from multiprocessing import get_context
from os import devnull
from pathlib import Path
from typing import Any, Protocol

import torch

from ..command_line import Parser
from ..errors import ConfigError, DivergedError
from ..files import atomic_path, write_json
from ..pipelines.loading import load_pipeline
from ..training.rate_grid import best_rate, is_bracketed, sweep_rates
from .held_out_loss import image_losses, load_framed_images
from .kinds import DEFAULT, Kind, main_of
from .trained_parts import load_trained_parts

HELD_OUT_SIZE = 64  # pixels a side


class ImageSet(Protocol):
    """Held-out images that a kind of fine-tuning is measured on. Objects travel to other processes."""

    def losses(self, model: str, trained: Path | None) -> list[float]:
        """The loss of each image under `model`, with what a run saved in the folder `trained` if that is given."""
        ...


@dataclass(frozen=True)
class HeldOut:
    """The denoising loss of a pipeline on images of a folder with metadata.jsonl, brought to a size.

    seed: of the noise. frame_column: of the boxes that an adapter trained with frames works in.
    """

    folder: str
    height: int
    width: int
    seed: int = 0
    frame_column: str | None = None

    def load(self, model: str, trained: Path | None) -> Any:
        """The pipeline with what a run saved."""
        return load_trained(model, trained)

    def measure(self, pipe: Any) -> list[float]:
        pixels, captions, boxes = load_framed_images(self.folder, self.height, self.width, self.frame_column)
        return image_losses(pipe, pixels, captions, self.seed, boxes=boxes if self.frame_column else None).tolist()

    def losses(self, model: str, trained: Path | None) -> list[float]:
        return self.measure(self.load(model, trained))


def load_trained(model: str, trained: Path | None) -> Any:
    """A pipeline, with what a run saved of its denoiser into its folder `final` where that is given."""
    pipe = load_pipeline(model)
    if trained is not None:
        load_trained_parts(pipe, trained, "unet" if hasattr(pipe, "unet") else "transformer")
    return pipe


@dataclass(frozen=True)
class FinishedRun:
    """A fine-tuning run and its losses on held-out images.

    options: of `geopos train`. parameters: how many were trained. losses: of each image, by name of the image set.
    seconds: of the training alone.
    """

    options: list[str]
    parameters: int
    losses: dict[str, list[float]]
    seconds: float

    def loss(self, name: str) -> float:
        """Mean loss of an image set."""
        return sum(self.losses[name]) / len(self.losses[name])


def base_losses(model: str, held_out: Mapping[str, ImageSet]) -> dict[str, list[float]]:
    """The losses of the model as it is."""
    return {name: images.losses(model, None) for name, images in held_out.items()}


def run_arm(
    options: Sequence[str], held_out: Mapping[str, ImageSet], folder: Path, kind: Kind = DEFAULT
) -> FinishedRun:
    """Fine-tune into `folder` and measure. Of a run that is there already only what is missing is measured.

    Args:
        kind: of fine-tuning, as `geopos train` calls it, or what runs a command line of another.
    """
    file, options = folder / "held_out.json", list(options)
    if file.is_file():
        run = FinishedRun(**json.loads(file.read_text(encoding="utf-8")))
        if run.options != options:
            raise ConfigError(f"{folder} holds a run with other options; give another output folder")
        if not held_out.keys() - run.losses.keys():
            return run
    else:
        with open(devnull, "w") as quiet, redirect_stdout(quiet):
            main_of(kind)([*options, "--output", str(folder), "--overwrite", "--report-to", "none"])
        run = None
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    losses = dict(run.losses) if run else {}
    for name, images in held_out.items():
        if name not in losses:
            losses[name] = images.losses(summary["model"], folder / "final")
    run = FinishedRun(options, summary["trained_parameters"], losses, summary["seconds"])
    write_json(file, asdict(run))
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    return run


def run_all(
    jobs: Sequence[tuple[Sequence[str], Path]],
    held_out: Mapping[str, ImageSet],
    workers: int,
    may_diverge: bool = False,
    kind: Kind = DEFAULT,
) -> list[FinishedRun]:
    """`run_arm` of all (options, folder), `workers` at a time, each with its share of the cores.

    Args:
        may_diverge: a run that diverges has losses that are not numbers; without it, it raises DivergedError.
    """
    run_job = partial(_run_job, held_out, may_diverge, kind)
    if workers == 1:
        return [run_job(job) for job in jobs]
    threads = max(1, torch.get_num_threads() // workers)
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        return [*pool.map(run_job, jobs)]


def _run_job(
    held_out: Mapping[str, ImageSet], may_diverge: bool, kind: Kind, job: tuple[Sequence[str], Path]
) -> FinishedRun:
    options, folder = job
    try:
        return run_arm(options, held_out, folder, kind)
    except DivergedError:
        if not may_diverge:
            raise
        return FinishedRun(list(options), 0, {name: [math.nan] for name in held_out}, 0.0)


def sweep(
    options: Sequence[str],
    rates: Sequence[float],
    swept: str,
    held_out: Mapping[str, ImageSet],
    folder: Path,
    workers: int = 1,
    kind: Kind = DEFAULT,
) -> dict[float, FinishedRun]:
    """Runs by learning rate, judged by the first image set. A grid whose best rate is its first or last one grows.

    Args:
        options: of `geopos train`, without the rate. swept: the option that takes it.
    """
    runs: dict[float, FinishedRun] = {}

    def measure(new: list[float]) -> list[float]:
        jobs = [([*options, f"--{swept}", f"{rate:g}"], folder / f"rate-{rate:g}") for rate in new]
        runs.update(zip(new, run_all(jobs, held_out, workers, may_diverge=True, kind=kind), strict=True))
        return [runs[rate].loss(next(iter(held_out))) for rate in new]

    return {rate: runs[rate] for rate in sweep_rates(rates, measure)}


def losses_by_rate(runs: dict[float, FinishedRun], name: str) -> dict[float, float]:
    """Mean losses of a sweep's runs on an image set."""
    return {rate: run.loss(name) for rate, run in runs.items()}


def draw_curves(curves: dict[str, dict[float, float]], target: Path) -> None:
    """A PNG of the loss ratio by learning rate, one curve for each name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, curve in curves.items():
        axes.plot([*curve], [*curve.values()], marker="o", label=name)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel="peak learning rate", ylabel="held-out loss, ratio to the base model")
    if len(curves) > 1:
        figure.legend(loc="outside right upper", frameon=False)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_unknown=True)
    parser.add_argument(
        "--validation-dataset",
        required=True,
        aliases=["--validation-images"],
        help="folder of held-out images with metadata.jsonl",
    )
    parser.add_argument(
        "--size",
        type=int,
        help=f"pixels a side of the images (default: {HELD_OUT_SIZE} held out, the model's in training)",
    )
    parser.add_argument(
        "--frame-column", help="column of boxes for training with frames, which the held-out images need too"
    )
    parser.add_argument("--rates", type=float, nargs="+", required=True, help="learning rates to begin with")
    parser.add_argument(
        "--swept",
        default="learning_rate",
        choices=("learning_rate", "geoconv_learning_rate", "bias_learning_rate", "lora_learning_rate"),
        help="the option that takes the rates (default: %(default)s)",
    )
    parser.add_argument(
        "--jobs", type=int, default=1, aliases=["--workers"], help="runs at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--output", required=True, aliases=["--output-dir"], help="folder of the runs, sweep.json and sweep.png"
    )
    args, options = parser.parse_known_args(argv)
    size = HELD_OUT_SIZE if args.size is None else args.size
    if not all(math.isfinite(rate) and rate > 0 for rate in args.rates) or args.jobs < 1 or size < 1:
        raise ConfigError("rates must be numbers > 0, jobs and size whole numbers >= 1")
    options += [] if args.size is None else ["--size", str(size)]
    options += [] if args.frame_column is None else ["--frame-column", args.frame_column]
    folder = Path(args.output)
    held_out = {"validation": HeldOut(args.validation_dataset, size, size, frame_column=args.frame_column)}
    runs = sweep(options, args.rates, args.swept, held_out, folder, args.jobs)
    best = best_rate(losses_by_rate(runs, "validation"))
    if not runs[best].parameters:
        raise ConfigError("the training diverged at every learning rate; begin with lower ones")
    summary = json.loads((folder / f"rate-{best:g}" / "summary.json").read_text(encoding="utf-8"))
    base = base_losses(summary["model"], held_out)["validation"]
    base_loss = sum(base) / len(base)
    losses = losses_by_rate(runs, "validation")
    curve = {rate: loss / base_loss for rate, loss in losses.items()}
    print(f"{'learning rate':>14} {'loss ratio':>10}")
    for rate, ratio in curve.items():
        print(f"{rate:14g} {'diverged' if math.isnan(ratio) else f'{ratio:.4f}':>10}{'  best' if rate == best else ''}")
    bracketed = is_bracketed(losses)
    if not bracketed:
        print(f"the best rate is not bracketed after {len(runs)} rates")
    result = {
        "options": options,
        "swept": args.swept,
        "base_loss": base_loss,
        "ratio": {f"{rate:g}": None if math.isnan(ratio) else ratio for rate, ratio in curve.items()},
        "best": best,
        "bracketed": bracketed,
        "parameters": runs[best].parameters,
        "date": date.today().isoformat(),
    }
    write_json(folder / "sweep.json", result)
    draw_curves({"": curve}, folder / "sweep.png")
