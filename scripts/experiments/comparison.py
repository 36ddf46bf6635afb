"""Many short trainings side by side, each in a folder of its own, continued or skipped; one JSON file of them all."""

import gc
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from geopos_diffusers.errors import ConfigError, DataError, DivergedError
from geopos_diffusers.files import write_json, write_text
from geopos_diffusers.training.arguments import option
from geopos_diffusers.training.learning_rate import cosine_schedule
from geopos_diffusers.training.loop import Stage, train_stage
from geopos_diffusers.training.loss_log import read_losses

from .baselines.kinds import parameter_count
from .baselines.trial import Build, Trial, trial_network
from .reported_command import reported_command

FORMAT_VERSION = 1
RECORD_FILE, CURVE_FILE = "record.json", "scores.jsonl"
# Settings that, with its trial, decide what a run gives.
RUN_SETTINGS = (
    *("steps", "batch_size", "warmup_steps", "weight_decay", "max_grad_norm"),
    *("train_count", "test_count", "size", "score_every"),
)


@dataclass
class ComparisonArguments:
    """Options that the trainings of a comparison share.

    Raises:
        ConfigError: a number that must be at least 1 and is not.
    """

    # Options that results files leave out: they say where things are, or only how far to go.
    not_recorded: ClassVar[tuple[str, ...]] = ("output_dir", "results", "report_to", "stop_at_step", "finished_only")

    output_dir: str = field(metadata={"help": "folder of the runs, one folder each; finished runs are skipped"})
    results: str = field(metadata={"help": "JSON file to write"})
    seeds: int = option(10, "seeds of the main comparison")
    matched_seeds: int = option(5, "seeds of the networks with equal numbers of parameters")
    map_seeds: int = option(2, "seeds of the other settings")
    steps: int = option(1000, "optimizer steps of a run")
    batch_size: int = option(16, "images a step, over all processes")
    learning_rate: float = option(4e-3, "peak, after the warm-up and before the cosine down to 0")
    learning_rates: list[float] = field(
        default_factory=list,
        metadata={"help": "peaks to choose each variant's own among; the grid grows until the best lies inside it"},
    )
    sweep_seeds: int = option(2, "seeds of that choice, none of which is one of the comparison's")
    warmup_steps: int = option(50, "steps of linear rise of the learning rate")
    weight_decay: float = option(0.0, "AdamW's")
    max_grad_norm: float = option(1.0, "norm that gradients are clipped to")
    train_count: int = option(8192, "training images of each kind of data")
    test_count: int = option(1024, "images of each validation and test set")
    size: int = option(32, "side of the images in pixels")
    report_to: str = option("none", "an accelerate tracker, or none")
    score_every: int | None = option(None, "steps between scores, which make a curve; without it at the end alone")
    checkpoint_every: int = option(1000, "steps between checkpoints, of which the last is kept")
    stop_at_step: int | None = option(None, "end every run at this step, with a checkpoint")
    finished_only: bool = option(False, "train nothing, and write the results of the runs that are finished")

    def __post_init__(self) -> None:
        for name in (
            "seeds",
            "map_seeds",
            "steps",
            "batch_size",
            "train_count",
            "test_count",
            "size",
            "checkpoint_every",
            "sweep_seeds",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; got {getattr(self, name)}")
        if self.score_every is not None and self.score_every < 1:
            raise ConfigError(f"score_every must be at least 1; got {self.score_every}")
        if not all(math.isfinite(rate) and rate > 0 for rate in (self.learning_rate, *self.learning_rates)):
            raise ConfigError(f"learning rates must be above 0; got {self.learning_rate}, {self.learning_rates}")

    def training_settings(self) -> dict[str, Any]:
        """What a run is continued under, beside its trial."""
        return {name: getattr(self, name) for name in RUN_SETTINGS}


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
    """Write the results file: how, when and on what it was made, `more`, and one line a run."""
    head = {
        "format_version": FORMAT_VERSION,
        "experiment": experiment,
        "command": reported_command(sys.argv),
        "date": date.today().isoformat(),
        "machine": {
            "threads": torch.get_num_threads(),
            "processor": platform.machine(),
            "torch": torch.__version__,
            "device": "cuda" if torch.cuda.is_available() else "cpu",
        },
        "cpu_seconds": round(sum(record["cpu_seconds"] for record in records), 1),
        "settings": {name: value for name, value in asdict(args).items() if name not in args.not_recorded},
        **more,
    }
    lines = ",\n".join(f"  {json.dumps(record, ensure_ascii=False)}" for record in records)
    text = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
    write_text(args.results, f'{text},\n "runs": [\n{lines}\n ]\n}}\n')
