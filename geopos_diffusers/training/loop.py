"""The loop of every training: steps, moving average, log, trackers, validation, checkpoints; stopped and continued."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor
from tqdm import tqdm

from ..errors import DivergedError
from ..folder_lock import locked_folder
from ..optional_packages import is_installed
from .checkpoints import TrainingState, load_checkpoint, remove_unfinished, save_checkpoint
from .interruption import Interruption
from .loss_log import VALIDATION_LOSSES, LossLog, draw_loss_curve, read_losses
from .progress import Progress
from .step_values import StepValues


@dataclass(frozen=True)
class Validation:
    """What looks at a training now and then.

    run(step): called after so many steps, and at the last; returns scores to log. It is called on the first process,
        with the averaged weights in place, while the others wait.
    every: steps between two; None for the last step alone. first: before the first step too.
    """

    run: Callable[[int], dict[str, float]]
    every: int | None = None
    first: bool = False


@dataclass
class Training:
    """What `train` runs.

    name: what the progress bar and messages call it.
    folder: of losses.jsonl, losses.png and checkpoint-N/.
    state: all that changes: what is trained, its optimizer or optimizers, its moving average.
    steps: how many there are in all.
    step(number): takes a step, counted from 0, and returns what to log by name: numbers, or tensors that are fetched
        later. Those called "loss" or "..._loss" must be finite. Usually a `GradientStep`; a GAN has its own, with two
        optimizers.
    save_parts(folder): writes what was trained, for a checkpoint. Called with the averaged weights in place.
    checkpoint_every: steps between checkpoints; the last step makes one too. checkpoints_limit: how many are kept.
    validations: called in this order where several are due.
    log_every: steps after which their values are fetched, checked and logged, each step on its own line. They are
        before every validation and checkpoint too: nothing is saved after a loss that is not finite.
    stopping(): whether the validations so far are reason enough to end. Asked on the first process.
    stop_at: a step to end at, with a checkpoint, before `steps`.
    quiet: one of many short trainings. No progress bar, printed line or loss curve.
    unit: what one step is called. logged_step(n): what losses.jsonl calls the end of the nth.
    clocks: times to note in each line of losses.jsonl, in seconds, added up over continued runs.
    tracker_prefix: of names in the trackers.
    """

    name: str
    folder: Path
    state: TrainingState
    steps: int
    step: Callable[[int], dict[str, float | Tensor]]
    save_parts: Callable[[Path], None]
    checkpoint_every: int
    checkpoints_limit: int | None = None
    validations: Sequence[Validation] = ()
    log_every: int = 10
    stopping: Callable[[], bool] | None = None
    stop_at: int | None = None
    quiet: bool = False
    unit: str = "step"
    logged_step: Callable[[int], int] = int
    clocks: Mapping[str, Callable[[], float]] = field(default_factory=dict)
    tracker_prefix: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    first_step, step: where it began (above 0 if continued) and ended. seconds: this time. times: by clock, over all
    continued runs; on the first process. scores: of the last validations.
    """

    first_step: int
    step: int
    seconds: float
    times: dict[str, float]
    scores: dict[str, float]


@contextmanager
def training_folder(folder: str | Path, accelerator: Accelerator) -> Iterator[None]:
    """Hold a training's folder within the block, after removing what a killed run left half-written in it.

    Raises:
        ConfigError: another run is at work there.
    """
    with locked_folder(folder) if accelerator.is_main_process else nullcontext():
        if accelerator.is_main_process:
            remove_unfinished(folder)
        yield


def train(training: Training, checkpoint: Path | None = None) -> Outcome:
    """Run a training to its end, from `checkpoint` or from its beginning. All processes must call it.

    After Ctrl-C or SIGTERM the step in progress is finished and a checkpoint saved.

    Raises:
        DivergedError: a loss is infinite or not a number.
        ConfigError, AdapterError: the checkpoint does not fit; see `load_checkpoint`.
        SystemExit: with 128 + the signal's number, after an interruption.
    """
    try:
        with Interruption() as interruption:
            return _train(training, checkpoint, interruption)
    except BaseException:
        for tracker in training.state.accelerator.trackers:
            tracker.finish()  # writes what it holds back
        raise


def _train(training: Training, checkpoint: Path | None, interruption: Interruption) -> Outcome:
    state, accelerator = training.state, training.state.accelerator
    shown = accelerator.is_main_process and not training.quiet
    start = load_checkpoint(state, checkpoint) if checkpoint else 0
    stop = max(start, min(training.steps, training.steps if training.stop_at is None else training.stop_at))
    if checkpoint and shown and start < stop:
        print(f"{training.name}: resuming from {checkpoint.name}, {training.unit} {start} of {training.steps}")
    log = LossLog(training.folder, training.logged_step(start)) if accelerator.is_main_process else None
    began, clocks, values = time.perf_counter(), _Clocks(training, log), StepValues(accelerator)
    scores: dict[str, float] = {}
    if start == 0:
        scores |= _validate(training, 0, [one for one in training.validations if one.first])
    done, ended = start, start < stop and _should_stop(training)
    progress = Progress(training.name, start, stop, training.steps, training.unit, training.log_every, shown)
    while done < stop and not ended:
        taken = training.step(done)
        if state.ema is not None:
            state.ema.step(state.parameters.values())
        done += 1
        values.add(done, clocks.times() if log is not None else {}, taken)
        progress.advance()
        due = [one for one in training.validations if done == stop or _is_due(done, one.every)]
        saves = done == stop or _is_due(done, training.checkpoint_every)
        fetches = saves or bool(due) or _is_due(done, training.log_every)
        if fetches:
            _log(training, values, log, progress)
        scores |= _validate(training, done, due)
        if due and done < stop and (ended := _should_stop(training)):
            scores |= _validate(training, done, [one for one in training.validations if one not in due])
        # Several processes agree on it; on GPUs that would make each of their steps wait for all.
        asks = fetches or accelerator.num_processes == 1 or accelerator.device.type == "cpu"
        stopped_by = interruption.noted(accelerator) if asks else None
        if saves or ended or stopped_by:
            _log(training, values, log, progress)
            saved = save_checkpoint(state, done, training.folder, training.save_parts, training.checkpoints_limit)
        if stopped_by:
            progress.close()
            if accelerator.is_main_process:
                print(f"{training.name}: stopped at {training.unit} {done} of {training.steps}; saved {saved}")
                print("run the same command again, without --overwrite, to continue", flush=True)
            raise SystemExit(128 + stopped_by)
    progress.close()
    if shown:
        if ended:
            print(f"{training.name}: ended early at {training.unit} {done} of {training.steps}")
        _draw_curve(training.folder)
    return Outcome(start, done, time.perf_counter() - began, clocks.last, scores)


def _log(training: Training, values: StepValues, log: LossLog | None, progress: Progress) -> None:
    """Fetch the values of the steps since the last time, and write them up to the first that is not finite.

    Raises:
        DivergedError: there is one.
    """
    for step, times, found in values.fetch():
        _refuse_non_finite(training, found, step)
        if log is not None:
            log.append(step=training.logged_step(step), **times, **found)
        training.state.accelerator.log({training.tracker_prefix + name: value for name, value in found.items()}, step)
        progress.report(step, found)


def _should_stop(training: Training) -> bool:
    """What the first process decides."""
    accelerator = training.state.accelerator
    if training.stopping is None:
        return False
    decided = torch.tensor([accelerator.is_main_process and training.stopping()], device=accelerator.device)
    return bool(broadcast(decided).item())


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _refuse_non_finite(training: Training, values: dict[str, float], step: int) -> None:
    for name, value in values.items():
        if (name == "loss" or name.endswith("_loss")) and not math.isfinite(value):
            raise DivergedError(
                f"{training.name}: the {name.replace('_', ' ')} is {value} at {training.unit} {step}; "
                "try a lower learning rate or bf16"
            )


def _validate(training: Training, step: int, due: Sequence[Validation]) -> dict[str, float]:
    """Scores of all that are due, on the first process; the others wait."""
    state, accelerator = training.state, training.state.accelerator
    scores: dict[str, float] = {}
    if not due:
        return scores
    with state.averaged():
        for validation in due if accelerator.is_main_process else ():
            scores |= validation.run(step)
        accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        accelerator.log({training.tracker_prefix + name: value for name, value in scores.items()}, step=step)
        if scores and not training.quiet:
            shown = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
            tqdm.write(f"{training.name} {training.unit} {step}: {shown}")
    return scores


class _Clocks:
    """Times since the beginning of a run, over its stops: those of the last line of its log, and of this process."""

    def __init__(self, training: Training, log: LossLog | None) -> None:
        lines = read_losses(log.path)[-1:] if log and training.clocks else []
        self.last = {name: lines[0].get(name, 0.0) if lines else 0.0 for name in training.clocks}
        self._began = {name: clock() - self.last[name] for name, clock in training.clocks.items()}
        self._clocks = training.clocks

    def times(self) -> dict[str, float]:
        self.last = {name: round(clock() - self._began[name], 2) for name, clock in self._clocks.items()}
        return self.last


def _draw_curve(folder: Path) -> None:
    losses: list[dict[str, Any]] = read_losses(folder / "losses.jsonl")
    if not losses or "loss" not in losses[0]:
        return
    if is_installed("matplotlib"):
        draw_loss_curve(losses, folder / "losses.png", read_losses(folder / VALIDATION_LOSSES))
    else:
        print("losses.png is left out: it needs matplotlib (pip install 'geopos-diffusers[train]')")
