"""Many short trainings side by side, each in a folder of its own, continued or skipped; one JSON file of them all."""

import gc
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from tqdm import tqdm

from geopos_diffusers.errors import ConfigError, DataError, DivergedError
from geopos_diffusers.files import write_json, write_text
from geopos_diffusers.training.arguments import (
    CONTINUED,
    OVERWRITE_HELP,
    check_arguments,
    fixed_settings,
    option,
    recorded_settings,
    required,
)
from geopos_diffusers.training.learning_rate import cosine_schedule
from geopos_diffusers.training.loss_log import read_losses
from geopos_diffusers.training.resuming import discard_run
from geopos_diffusers.training.stage import Stage, train_stage
from geopos_diffusers.training.tracking import build_accelerator, start_trackers

from . import results
from .baselines.kinds import parameter_count
from .baselines.trial import Build, Trial, trial_network

RECORD_FILE, CURVE_FILE = "record.json", "scores.jsonl"


@dataclass
class ComparisonArguments:
    """Options that the trainings of a comparison share.

    Raises:
        ConfigError: a value that is out of its range.
    """

    output_dir: str = required(
        f"folder of the runs, one folder each; finished runs are skipped, and {CONTINUED}",
        resume="free",
        name="output",
        recorded=False,
    )
    results: str = required("JSON file to write", resume="free", recorded=False)
    # Which runs are made. A run is continued under its own trial, whatever these are.
    seeds: int = option(10, "seeds of the main comparison", resume="free", name="num_seeds", at_least=1)
    matched_seeds: int = option(
        5,
        "seeds of the networks with equal numbers of parameters",
        resume="free",
        name="num_matched_seeds",
        at_least=0,
    )
    map_seeds: int = option(2, "seeds of the other settings", resume="free", name="num_map_seeds", at_least=1)
    steps: int = option(1000, "optimizer steps of a run", resume="fixed", name="max_train_steps", at_least=1)
    batch_size: int = option(16, "images a step, over all processes", resume="fixed", at_least=1)
    # A part of the trial: each may have another.
    learning_rate: float = option(
        4e-3, "peak, after the warm-up and before the cosine down to 0", resume="free", above=0
    )
    learning_rates: list[float] = option(
        [],
        "peaks to choose each variant's own among; the grid grows until the best lies inside it",
        resume="free",
        above=0,
    )
    sweep_seeds: int = option(
        2,
        "seeds of that choice, none of which is one of the comparison's",
        resume="free",
        name="num_sweep_seeds",
        at_least=1,
    )
    warmup_steps: int = option(
        50, "steps of linear rise of the learning rate", resume="fixed", name="lr_warmup_steps", at_least=0
    )
    weight_decay: float = option(0.0, "AdamW's", resume="fixed", name="adam_weight_decay", at_least=0)
    max_grad_norm: float = option(1.0, "norm that gradients are clipped to", resume="fixed", above=0)
    train_count: int = option(
        8192, "training images of each kind of data", resume="fixed", name="train_images", at_least=1
    )
    test_count: int = option(
        1024, "images of each validation and test set", resume="fixed", name="test_images", at_least=1
    )
    size: int = option(32, "side of the images in pixels", resume="fixed", at_least=1)
    report_to: str = option("none", "an accelerate tracker, or none", resume="free", recorded=False)
    score_every: int | None = option(
        None,
        "steps between scores, which make a curve; without it at the end alone",
        resume="fixed",
        name="validation_steps",
        at_least=1,
    )
    checkpoint_every: int = option(
        1000,
        "steps between checkpoints, of which the last is kept",
        resume="free",
        name="checkpointing_steps",
        at_least=1,
    )
    stop_at_step: int | None = option(
        None, "end every run at this step, with a checkpoint", resume="free", recorded=False, at_least=1
    )
    finished_only: bool = option(
        False,
        "train nothing, and write the results of the runs that are finished",
        resume="free",
        name="results_only",
        recorded=False,
    )
    overwrite: bool = option(False, OVERWRITE_HELP, resume="free", recorded=False)

    def __post_init__(self) -> None:
        check_arguments(self)
        if self.overwrite and self.finished_only:
            raise ConfigError("overwrite discards the runs that results_only reports; give one of them")
        self.begun: set[Path] = set()  # folders that this program has begun: overwrite discards what was there before

    def training_settings(self) -> dict[str, Any]:
        """What a run is continued under, beside its trial."""
        return fixed_settings(self)


@dataclass
class Task:
    """What is learnt, and how it is scored.

    build(trial): the network, of plain convolutions.
    loss(outputs, targets): scalars by name, "loss" among them, of what the network makes of a batch [B, ...].
    train_set(data): all inputs [N, ...] and targets [N, ...] of `Trial.data`, on the CPU; called once for each name.
    scores(network, trial): of the network in eval mode, on validation and test data.
    chosen_by: the score, lower is better, that a learning rate is chosen by; of validation data.
    finish(network, trial, folder): more of the record of a trained network in eval mode; may write files into `folder`.
    """

    build: Build
    loss: Callable[[Any, Tensor], dict[str, Tensor]]
    train_set: Callable[[str], tuple[Tensor, Tensor]]
    scores: Callable[[nn.Module, Trial], dict[str, float]]
    finish: Callable[[nn.Module, Trial, Path], dict[str, Any]] | None = None
    chosen_by: str = "validation"


@dataclass
class RunOptions:
    """What `train_stage` reads, for one run."""

    output_dir: str
    seed: int
    checkpoint_every: int
    sample_every: int
    stop_at_step: int | None
    weight_decay: float
    max_grad_norm: float
    ema_decay: float | None = None


class TaskLoss(nn.Module):
    """A network with its loss: images and targets [B, ...] to scalars by name."""

    def __init__(self, network: nn.Module, loss: Callable[[Any, Tensor], dict[str, Tensor]]) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return self.loss(self.network(images), targets)


def begin(args: ComparisonArguments, name: str) -> Accelerator:
    """The accelerator of a comparison, with its trackers open under `name` and the global generators seeded."""
    accelerator = build_accelerator(args.output_dir, None, 1, args.report_to)
    start_trackers(accelerator, name, args.training_settings())
    set_seed(0)
    return accelerator


def run_trials(
    trials: Iterable[Trial], task: Task, args: ComparisonArguments, accelerator: Accelerator, label: str
) -> list[dict[str, Any]]:
    """Train all that has not been trained, each trial once; the records of those that are finished, in their order."""
    task = replace(task, train_set=cache(task.train_set))
    records = []
    gc.freeze()  # accelerate collects garbage after every run, which is slow through all that was imported
    trials = dict.fromkeys(at_rate(trial, args) for trial in trials)
    for trial in tqdm(list(trials), desc=label, disable=not accelerator.is_main_process):
        folder = run_folder(trial, args)
        if args.overwrite and folder not in args.begun:
            args.begun.add(folder)
            if accelerator.is_main_process:
                discard_run(folder)
            accelerator.wait_for_everyone()
        if not (folder / RECORD_FILE).is_file():
            if args.finished_only:
                continue
            record = run_trial(trial, task, args, accelerator, folder)
            if record is None:
                continue
            if accelerator.is_main_process:
                write_json(folder / RECORD_FILE, record)
            accelerator.wait_for_everyone()
        records.append(read_record(folder / RECORD_FILE))
    return records


def at_rate(trial: Trial, args: ComparisonArguments) -> Trial:
    """`trial` at the comparison's learning rate, unless it has one of its own."""
    return trial if trial.learning_rate is not None else replace(trial, learning_rate=args.learning_rate)


def run_folder(trial: Trial, args: ComparisonArguments) -> Path:
    return Path(args.output_dir) / at_rate(trial, args).name(args.training_settings())


def run_trial(
    trial: Trial, task: Task, args: ComparisonArguments, accelerator: Accelerator, folder: Path
) -> dict[str, Any] | None:
    """Train one network from its last checkpoint on. Returns its record, or None if it stopped before its end.

    Raises:
        DivergedError: a score is infinite or not a number.
    """
    began = time.process_time()
    network = trial_network(trial, task.build)
    images, targets = task.train_set(trial.data)
    torch.manual_seed(trial.seed)  # the shifts are drawn from the global generator

    def draw_batch(indices: list[int], step: int, generator: torch.Generator) -> dict[str, Tensor]:
        chosen = torch.tensor(indices)
        return {"images": images[chosen], "targets": targets[chosen]}

    def validate(folder: Path, step: int) -> dict[str, float]:
        network.eval()
        with torch.no_grad():
            scores = task.scores(network, trial)
        network.train()
        if not all(map(math.isfinite, scores.values())):
            raise DivergedError(f"{trial.variant}, rate {trial.learning_rate:g}: not finite at step {step}: {scores}")
        if args.score_every is not None:
            lines = [line for line in read_losses(folder / CURVE_FILE) if line["step"] < step]
            write_text(
                folder / CURVE_FILE, "".join(json.dumps(line) + "\n" for line in [*lines, {"step": step, **scores}])
            )
        return scores

    learning_rate = cosine_schedule(trial.learning_rate, args.warmup_steps, args.steps)
    loss = TaskLoss(network, task.loss).train()
    stage = Stage(
        folder.name, 0, loss, args.steps, args.batch_size, learning_rate, draw_batch, validate, lambda folder: None,
        short=True,
    )  # fmt: skip
    options = RunOptions(
        str(folder.parent), trial.seed, args.checkpoint_every, args.score_every or args.steps, args.stop_at_step,
        args.weight_decay, args.max_grad_norm,
    )  # fmt: skip
    settings = {**trial.record(), **args.training_settings()}
    summary = train_stage(stage, options, accelerator, len(images), settings)
    if not summary.pop("finished"):
        return None
    steps, seconds = summary.pop("steps"), summary.pop("seconds")
    record = {"scores": {name: round(value, 7) for name, value in summary.items()}}
    if args.score_every is not None and accelerator.is_main_process:
        record["curves"] = read_curves(folder, args.score_every, steps)
    if task.finish is not None and accelerator.is_main_process:
        with torch.no_grad():
            record |= task.finish(network.eval(), trial, folder)
    return {
        **trial.record(),
        "parameters": parameter_count(network),
        "steps": steps,
        "seconds": seconds,
        "cpu_seconds": round(time.process_time() - began, 1),
        **record,
    }


def read_curves(folder: Path, every: int, last: int) -> dict[str, list[float]]:
    """Scores at every so many steps and at the last, and the mean losses since the step before, as "train_...".

    Scores of a step at which the run was only stopped are left out, so that a continued run has the same curves.
    """
    scored = [line for line in read_losses(folder / CURVE_FILE) if line["step"] % every == 0 or line["step"] == last]
    steps = [line["step"] for line in scored]
    curves = {name: [line[name] for line in scored] for name in scored[0]}
    losses = read_losses(folder / "losses.jsonl")
    for name in losses[0].keys() - {"step", "seconds", "learning_rate", "grad_norm"}:
        values = [line[name] for line in losses]
        curves[f"train_{name}"] = [fmean(values[begin:end]) for begin, end in pairwise([0, *steps])]
    return {
        name: values if name == "step" else [float(f"{value:.5g}") for value in values]
        for name, values in sorted(curves.items())
    }


def score_sets(
    network: nn.Module, sets: dict[str, tuple[Tensor, Tensor]], score: Callable[[Any, Tensor], Tensor]
) -> dict[str, float]:
    """`score(outputs, targets)` of each set of images and targets."""
    device = next(network.parameters()).device
    return {
        name: score(network(images.to(device)), targets.to(device)).item() for name, (images, targets) in sets.items()
    }


def read_record(path: Path) -> dict[str, Any]:
    """A run's record. Raises DataError if the file is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged; remove it to run this again ({error})") from error


def write_results(experiment: str, records: list[dict[str, Any]], args: ComparisonArguments, **more: Any) -> None:
    """Write the results file of a comparison's runs, with `more` in its head."""
    results.write_results(args.results, experiment, records, recorded_settings(args), **more)
