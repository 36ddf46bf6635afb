"""Claim C2 of the paper: do plain convolutions, CoordConv and GeoConv tie a class to the place where it was seen?

    python -m scripts.experiments.positional_bias.run --config configs/experiments/positional_bias.yaml

Greek numerals, each class in its own cell of a grid while training. Accuracy where training put them, in the cell of
another class, anywhere in the grid and in a frame around it that training never used. Reported are the package's
default, the same without the shift, and CoordConv with that shift, none of which is chosen by these scores; and a shift
twice as wide, which was added after the sweep's first seed had shown less bias there.

1. The comparison, many seeds, also with equal numbers of parameters.
2. A few seeds: training without positional bias, and a head that shows places to every kind.
3. The sensitivity sweep (N1) of every option of the geometry channel.

With `--learning-rates` (configs/experiments/positional_bias_rates.yaml) nothing of that, but a comparison in which each
variant has its own best rate of a sweep; GeoConv with and without shift, in both bases.

Started again, it skips the runs that are finished and continues the one that is not; --overwrite begins anew.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from geopos_diffusers.patching.config import GeoPosConfig
from geopos_diffusers.training.arguments import option, parse_arguments
from geopos_diffusers.training.processes import end_run, run_script

from ..baselines.position_network import PositionNetwork, PositionTrial
from ..baselines.sensitivity import geometry_sweep
from ..baselines.trial import match_parameters
from ..comparison import ComparisonArguments, Task, begin, run_trials, score_sets, write_results
from ..own_rates.comparison import run_at_own_rates
from .data import NUMERALS, PLACEMENTS, draw_numerals

TRAIN_SEED, VALIDATION_SEED, TEST_SEED = 1, 2, 3  # of the images
HEAD = "maximum"
DEFAULT, NO_SHIFT = GeoPosConfig(), GeoPosConfig(shift_range=0.0)
COORD_SHIFT = GeoPosConfig(encoding="cartesian")
WIDE_SHIFT = GeoPosConfig(shift_range=0.5)


@dataclass
class PositionalBiasArguments(ComparisonArguments):
    """Options of this experiment."""

    widths: list[int] = option([16, 32, 32], "channels of the strided convolutions", resume="free", at_least=1)
    batch_norm: bool = option(
        False, "batch normalisation after each convolution, with which all kinds learn", resume="free"
    )
    sweep_shifts: list[float] = option([0.0, 0.25, 0.5, 1.0], "shift ranges of the sweep", resume="free", at_least=0)


def accuracy(logits: Tensor, classes: Tensor) -> Tensor:
    """Share of samples whose largest logit is that of their class: logits [B, K], classes [B]."""
    return (logits.argmax(1) == classes).float().mean()


def build_task(args: PositionalBiasArguments) -> Task:
    tests = {placement: draw_numerals(args.test_count, args.size, placement, TEST_SEED) for placement in PLACEMENTS}

    @cache
    def test_sets(data: str) -> dict[str, tuple[Tensor, Tensor]]:
        return {"validation": draw_numerals(args.test_count, args.size, data, VALIDATION_SEED), **tests}

    def scores(network: nn.Module, trial: PositionTrial) -> dict[str, float]:
        sets = test_sets(trial.data)
        loss = score_sets(network, {"validation_loss": sets["validation"]}, cross_entropy)
        return score_sets(network, sets, accuracy) | loss

    return Task(
        build=lambda trial: build_network(trial, args.size),
        loss=lambda logits, classes: {"loss": cross_entropy(logits, classes)},
        train_set=lambda data: draw_numerals(args.train_count, args.size, data, TRAIN_SEED),
        scores=scores,
        chosen_by="validation_loss",
    )


def build_network(trial: PositionTrial, size: int) -> PositionNetwork:
    """From images [B, 1, size, size] to the logits of the numerals [B, K]."""
    return PositionNetwork(trial.widths, len(NUMERALS), trial.head, size, trial.batch_norm)


def comparison_trials(args: PositionalBiasArguments) -> Iterator[PositionTrial]:
    """Stage 1."""
    for seed in range(args.seeds):
        kinds = variants(args, "tied", HEAD, seed)
        yield from kinds.values()
        if seed < args.matched_seeds:
            build = partial(build_network, size=args.size)
            yield from (match_parameters(kinds[name], build) for name in ("conv", "default"))


def other_trials(args: PositionalBiasArguments) -> Iterator[PositionTrial]:
    """Stages 2 and 3."""
    for seed in range(args.map_seeds):
        for geometry in geometry_sweep(args.sweep_shifts):
            yield PositionTrial(kind="geo", geometry=geometry, **shared_options(args, "tied", HEAD, seed))
        for data, head in (("everywhere", HEAD), ("tied", "flatten")):
            yield from variants(args, data, head, seed).values()


def own_rate_trials(args: PositionalBiasArguments, seed: int) -> Iterator[PositionTrial]:
    """The variants that are compared at their own rates."""
    shared = shared_options(args, "tied", HEAD, seed)
    yield from (PositionTrial(kind=kind, **shared) for kind in ("conv", "coord"))
    for kind in ("geo", "geo-multilinear"):
        yield from (PositionTrial(kind=kind, geometry=geometry, **shared) for geometry in (DEFAULT, NO_SHIFT))


def variants(args: PositionalBiasArguments, data: str, head: str, seed: int) -> dict[str, PositionTrial]:
    shared = shared_options(args, data, head, seed)
    return {
        "conv": PositionTrial(kind="conv", **shared),
        "coord": PositionTrial(kind="coord", **shared),
        "coord with shift": PositionTrial(kind="geo", geometry=COORD_SHIFT, **shared),
        "no shift": PositionTrial(kind="geo", geometry=NO_SHIFT, **shared),
        "default": PositionTrial(kind="geo", geometry=DEFAULT, **shared),
        "wide shift": PositionTrial(kind="geo", geometry=WIDE_SHIFT, **shared),
    }


def shared_options(args: PositionalBiasArguments, data: str, head: str, seed: int) -> dict[str, Any]:
    return {"data": data, "head": head, "widths": tuple(args.widths), "seed": seed, "batch_norm": args.batch_norm}


def main() -> None:
    args = parse_arguments(PositionalBiasArguments)
    accelerator = begin(args, "paper_positional_bias")
    task = build_task(args)
    if args.learning_rates:
        run_at_own_rates("positional_bias", partial(own_rate_trials, args), task, args, accelerator, head=HEAD)
        return end_run(accelerator)
    trials = list(comparison_trials(args))
    for label, more in (("comparison", []), ("sweep", other_trials(args))):
        trials += more
        records = run_trials(trials, task, args, accelerator, label)
        if accelerator.is_main_process and records:
            write_results("positional_bias", records, args, head=HEAD)
            print(f"wrote {len(records)} runs to {args.results}")
    end_run(accelerator)


if __name__ == "__main__":
    run_script(main)
