"""Arms of an experiment: each at its own best learning rate, found by a sweep, then trained with several seeds."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geopos_diffusers.files import write_json
from geopos_diffusers.finetuning.kinds import DEFAULT, Kind
from geopos_diffusers.finetuning.learning_rate_sweep import FinishedRun, ImageSet, losses_by_rate, run_all, sweep
from geopos_diffusers.training.rate_grid import best_rate, is_bracketed

SWEEP_SEED = 100  # of the runs that choose a rate; the others count from 0


@dataclass(frozen=True)
class Arm:
    """What is trained.

    options: of `geopos train`. rates: where the sweep begins. swept: the option that takes them.
    beside: an earlier arm whose best rate the option `beside_option` takes here.
    """

    options: str
    rates: tuple[float, ...]
    swept: str = "learning_rate"
    beside: str | None = None
    beside_option: str = "learning_rate"


@dataclass(frozen=True)
class TrainedArm:
    """An arm's runs at its best rate, by seed.

    variant: its entry in a results file; the losses of its sweep are ratios. folder: holds seed-0, seed-1 ...
    """

    name: str
    variant: dict[str, Any]
    folder: Path
    runs: list[FinishedRun]

    def final(self, seed: int) -> Path:
        """What a run saved."""
        return self.folder / f"seed-{seed}" / "final"


def train_arms(
    arms: Mapping[str, Arm],
    common: Sequence[str],
    work: Path,
    validation: Mapping[str, ImageSet],
    tests: Mapping[str, ImageSet],
    num_seeds: int,
    base_loss: Mapping[str, float],
    jobs: int = 1,
    kind: Kind = DEFAULT,
) -> Iterator[TrainedArm]:
    """Sweep, then train, arm by arm, in `work`; what is finished is not made again.

    Args:
        common: options of `geopos train` of all arms.
        validation: one set, which the sweeps are judged by. tests: what the trained arms are measured on.
        base_loss: of the model without training, by set: the unit of the sweeps' losses.
        jobs: runs at a time. kind: of fine-tuning, as `geopos train` calls it.
    """
    best: dict[str, float] = {}
    for name, arm in arms.items():
        options, folder = arm_options(arm, common, best), work / arm_folder(name)
        variant = choose_rate(arm, options, folder / "sweep", validation, base_loss, jobs, kind)
        best[name] = variant["best_rate"]
        print(f"{name}: {variant['sweep']}, best {best[name]:g}", flush=True)
        chosen = [(seed_options(arm, options, best[name], seed), folder / f"seed-{seed}") for seed in range(num_seeds)]
        runs = run_all(chosen, tests, jobs, kind=kind)
        print(f"{name}: test losses {', '.join(f'{run.loss(next(iter(tests))):.4f}' for run in runs)}", flush=True)
        yield TrainedArm(name, variant, folder, runs)


def arm_folder(name: str) -> str:
    return name.replace(" ", "-")


def arm_options(arm: Arm, common: Sequence[str], best: Mapping[str, float]) -> list[str]:
    """Options of `geopos train` of an arm, without the swept rate and the seed. best: rates of earlier arms."""
    options = [*common, *arm.options.split()]
    return options if arm.beside is None else [*options, f"--{arm.beside_option}", f"{best[arm.beside]:g}"]


def seed_options(arm: Arm, options: Sequence[str], rate: float, seed: int) -> list[str]:
    """`options` with the rate and the seed of one run."""
    return [*options, f"--{arm.swept}", f"{rate:g}", "--seed", str(seed)]


def choose_rate(
    arm: Arm,
    options: Sequence[str],
    folder: Path,
    validation: Mapping[str, ImageSet],
    base_loss: Mapping[str, float],
    jobs: int = 1,
    kind: Kind = DEFAULT,
    seed: int = SWEEP_SEED,
) -> dict[str, Any]:
    """Sweep an arm's rate in `folder`. Returns its entry in a results file; the losses of the sweep are ratios."""
    (judge,) = validation
    swept = sweep([*options, "--seed", str(seed)], arm.rates, arm.swept, validation, folder, jobs, kind)
    losses = losses_by_rate(swept, judge)
    return {
        "options": arm.options,
        "swept": arm.swept,
        "parameters": swept[best_rate(losses)].parameters,
        "sweep": {f"{rate:g}": loss / base_loss[judge] for rate, loss in losses.items()},
        "best_rate": best_rate(losses),
        "bracketed": is_bracketed(losses),
    }


def option_words(options: Mapping[str, Any]) -> list[str]:
    """Options of `geopos train` as words of its command line."""
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def kept_scores(file: Path, settings: dict[str, Any], measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What `measure` returns, kept in `file`: read from there where it was measured with the same settings."""
    if file.is_file() and (found := json.loads(file.read_text(encoding="utf-8")))["settings"] == settings:
        return found["scores"]
    scores = measure()
    write_json(file, {"settings": settings, "scores": scores})
    return scores


def mean_losses(losses: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The mean of each set's losses."""
    return {name: sum(values) / len(values) for name, values in losses.items()}
