"""A comparison in which each variant trains at its own best learning rate, chosen on validation data.

The rate is chosen for each variant and each kind of data by runs with seeds of their own, at the comparison's own
budget. Test scores are never looked at. The results file says which rates were tried and what they gave.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import isfinite, nan
from statistics import fmean
from typing import Any

from accelerate import Accelerator

from geopos_diffusers.errors import ConfigError, DivergedError
from geopos_diffusers.training.rate_grid import best_rate, is_bracketed, sweep_rates

from ..baselines.trial import Trial
from ..comparison import ComparisonArguments, Task, run_trials, write_results

EXPERIMENT = "own_rates"
FIRST_SWEEP_SEED = 1000  # above the seeds of any comparison


@dataclass(frozen=True)
class RateSweep:
    """The sweep of one variant on one kind of data.

    losses: mean validation loss over the sweep's seeds, by learning rate. runs: their records.
    """

    losses: dict[float, float]
    runs: list[dict[str, Any]]

    @property
    def best(self) -> float:
        return best_rate(self.losses)

    def record(self, trial: Trial) -> dict[str, Any]:
        """What was tried for `trial`, JSON-ready."""
        return {
            "variant": trial.variant,
            "data": trial.data,
            "learning_rate": self.best,
            "bracketed": is_bracketed(self.losses),
            "seeds": sorted({run["seed"] for run in self.runs}),
            "losses": {
                f"{rate:g}": float(f"{loss:.5g}") if isfinite(loss) else None for rate, loss in self.losses.items()
            },
        }


def sweep(trial: Trial, task: Task, args: ComparisonArguments, accelerator: Accelerator) -> RateSweep | None:
    """Train `trial` with the sweep's seeds at rates that grow from `args.learning_rates` until the best is bracketed.

    A rate at which a run diverges is worse than all others.

    Returns:
        The sweep, or None if runs of it are not finished (`stop_at_step`, `finished_only`).
    """
    runs: list[dict[str, Any]] = []

    def loss_at(rate: float) -> float:
        seeds = range(FIRST_SWEEP_SEED, FIRST_SWEEP_SEED + args.sweep_seeds)
        trials = [replace(trial, seed=seed, learning_rate=rate) for seed in seeds]
        try:
            records = run_trials(trials, task, args, accelerator, f"{trial.variant}, rate {rate:g}")
        except DivergedError:
            return nan
        if len(records) < len(trials):
            raise _UnfinishedError
        runs.extend(records)
        return fmean(record["scores"][task.chosen_by] for record in records)

    try:
        return RateSweep(sweep_rates(args.learning_rates, lambda rates: [loss_at(rate) for rate in rates]), runs)
    except _UnfinishedError:
        return None


class _UnfinishedError(Exception):
    """Runs of a sweep are not finished."""


def run_at_own_rates(
    name: str,
    trials: Callable[[int], Iterable[Trial]],
    task: Task,
    args: ComparisonArguments,
    accelerator: Accelerator,
    **more: Any,
) -> list[dict[str, Any]]:
    """Choose the rate of every variant, train all seeds at it, and write the results file.

    Args:
        name: of the experiment, which the results file gives as its task.
        trials: those of a seed; the first seed's are swept, and a variant that later seeds leave out is left out there.
        more: for the head of the results file.

    Returns:
        The records of the finished runs, in the order of the seeds.

    Raises:
        ConfigError: so many seeds that the sweep's are among them.
    """
    if args.seeds > FIRST_SWEEP_SEED:
        raise ConfigError(f"seeds must be at most {FIRST_SWEEP_SEED}, where those of the sweep begin; got {args.seeds}")
    task, sweeps = replace(task, train_set=cache(task.train_set)), {}
    for trial in trials(0):
        if (found := sweep(trial, replace(task, finish=None), args, accelerator)) is not None:
            sweeps[replace(trial, seed=0)] = found
    chosen: list[Trial] = []
    for seed in range(args.seeds):
        for trial in trials(seed):
            if (found := sweeps.get(replace(trial, seed=0))) is not None:
                chosen.append(replace(trial, learning_rate=found.best))
    records = run_trials(chosen, task, args, accelerator, "comparison at own rates")
    if accelerator.is_main_process and records:
        swept = [run for found in sweeps.values() for run in found.runs]
        write_results(
            EXPERIMENT,
            records,
            args,
            cpu_seconds=cpu_seconds([*records, *swept]),
            task=name,
            rates=[found.record(trial) for trial, found in sweeps.items()],
            **more,
        )
        print(f"wrote {len(records)} runs and {len(swept)} of the sweeps to {args.results}")
    return records


def cpu_seconds(records: Sequence[dict[str, Any]]) -> float:
    return round(sum(record["cpu_seconds"] for record in records), 1)
