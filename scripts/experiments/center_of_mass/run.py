"""Claim C1 of the paper: the centre of mass of points, by plain convolutions, CoordConv and GeoConv.

    python -m scripts.experiments.center_of_mass.run --config configs/experiments/center_of_mass.yaml

1. The map: head x depth x encoding x shift x where and how densely training points lie, a few seeds each.
2. The comparison: the encoding and shift whose validation loss was lowest in the map, and this package's default,
   beside the other kinds and with equal numbers of parameters; many seeds; with and without a region that training
   never shows.
3. The sensitivity sweep (N1) of every option of the geometry channel.

With `--learning-rates` (configs/experiments/center_of_mass_rates.yaml) nothing of that, but a comparison in which each
variant has its own best rate of a sweep; GeoConv with and without shift, in both bases.

Started again, it skips the runs that are finished and continues the one that is not; --overwrite begins anew.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from statistics import fmean
from typing import Any

import torch
from torch.nn.functional import mse_loss

from geopos_diffusers.patching.config import GeoPosConfig
from geopos_diffusers.training.arguments import option, parse_arguments
from geopos_diffusers.training.processes import end_run, run_script

from ..baselines.position_network import PositionNetwork, PositionTrial
from ..baselines.sensitivity import geometry_sweep
from ..baselines.trial import match_parameters, variant_name
from ..comparison import ComparisonArguments, Task, begin, run_trials, score_sets, write_results
from ..own_rates.comparison import run_at_own_rates
from .data import DENSITIES, REGIONS, draw_points

EVERYWHERE, HELD_OUT = "all/everywhere", "all/three_quarters"
HEAD = "average"  # of the comparison: the plain convolution is blind to places but for the border
MAPPED = ("product", "squares")  # encodings; the sum is in the sweep
TRAIN_SEED, VALIDATION_SEED, TEST_SEED = 1, 2, 3  # of the images


@dataclass
class CenterOfMassArguments(ComparisonArguments):
    """Options of this experiment."""

    widths: list[int] = option([8, 16, 32, 32], "channels of the strided convolutions", resume="free", at_least=1)
    shallow_widths: list[int] = option(
        [8, 16, 32],
        "channels of a network that is too shallow to see the border from everywhere; in the map",
        resume="free",
        at_least=1,
    )
    map_shifts: list[float] = option(
        [0.0, 0.25, 1.0], "shift ranges of the map, the first two of them in all of it", resume="free", at_least=0
    )
    sweep_shifts: list[float] = option([0.0, 0.25, 0.5, 1.0], "shift ranges of the sweep", resume="free", at_least=0)


def build_task(args: CenterOfMassArguments) -> Task:
    """Mean squared error of x and y, in units of half the image's side."""

    def draw(data: str, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        density, region = data.split("/")
        return draw_points(count, args.size, density, region, seed)

    tests = {f"{density}/{region}": None for density in DENSITIES for region in REGIONS}
    for data in tests:
        tests[data] = draw(data, args.test_count, TEST_SEED)

    @cache
    def test_sets(data: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        return {"validation": draw(data, args.test_count, VALIDATION_SEED), **tests}

    return Task(
        build=lambda trial: build_network(trial, args.size),
        loss=lambda outputs, targets: {"loss": mse_loss(outputs, targets)},
        train_set=lambda data: draw(data, args.train_count, TRAIN_SEED),
        scores=lambda network, trial: score_sets(network, test_sets(trial.data), mse_loss),
    )


def build_network(trial: PositionTrial, size: int) -> PositionNetwork:
    """From images [B, 1, size, size] to x and y [B, 2]."""
    return PositionNetwork(trial.widths, 2, trial.head, size)


def map_trials(args: CenterOfMassArguments) -> Iterator[PositionTrial]:
    """The part of stage 1 that the choice is made by: the comparison's own network and data."""
    geometries = [GeoPosConfig(encoding=name, shift_range=shift) for name in MAPPED for shift in args.map_shifts]
    for data in (EVERYWHERE, HELD_OUT):
        yield from variants(data, HEAD, args.widths, geometries, args.map_seeds)


def other_trials(args: CenterOfMassArguments) -> Iterator[PositionTrial]:
    """The rest of stage 1, and stage 3 on the data that shows both the fit and what becomes of it elsewhere."""
    for seed in range(args.map_seeds):
        for geometry in geometry_sweep(args.sweep_shifts):
            yield PositionTrial(
                data=HELD_OUT, head=HEAD, widths=tuple(args.widths), kind="geo", seed=seed, geometry=geometry
            )
    few = [GeoPosConfig(shift_range=shift) for shift in args.map_shifts[:2]]
    yield from variants(EVERYWHERE, "flatten", args.widths, few, args.map_seeds)
    for data in (EVERYWHERE, HELD_OUT):
        yield from variants(data, HEAD, args.shallow_widths, few, args.map_seeds)
    for data in ("sparse/everywhere", "dense/everywhere"):
        yield from variants(data, HEAD, args.widths, few, args.map_seeds)


def variants(
    data: str, head: str, widths: list[int], geometries: list[GeoPosConfig], seeds: int
) -> Iterator[PositionTrial]:
    """conv, coord and GeoConvs."""
    for seed in range(seeds):
        shared = {"data": data, "head": head, "widths": tuple(widths), "seed": seed}
        yield from (PositionTrial(kind=kind, **shared) for kind in ("conv", "coord"))
        yield from (PositionTrial(kind="geo", geometry=geometry, **shared) for geometry in geometries)


def matched_variants(args: CenterOfMassArguments, data: str, geometry: GeoPosConfig) -> Iterator[PositionTrial]:
    """conv and GeoConv with as many parameters as coord."""
    build = partial(build_network, size=args.size)
    for trial in variants(data, HEAD, args.widths, [geometry], args.matched_seeds):
        if trial.kind != "coord":
            yield match_parameters(trial, build)


def own_rate_trials(args: CenterOfMassArguments, seed: int) -> Iterator[PositionTrial]:
    """The variants that are compared at their own rates, on both kinds of data."""
    build, geometries = partial(build_network, size=args.size), (GeoPosConfig(), GeoPosConfig(shift_range=0.0))
    for data in (EVERYWHERE, HELD_OUT):
        shared = {"data": data, "head": HEAD, "widths": tuple(args.widths), "seed": seed}
        plain = PositionTrial(kind="conv", **shared)
        yield from (plain, PositionTrial(kind="coord", **shared))
        for kind in ("geo", "geo-multilinear"):
            yield from (PositionTrial(kind=kind, geometry=geometry, **shared) for geometry in geometries)
        if seed < args.matched_seeds:
            yield match_parameters(plain, build)


def choose_geometry(records: list[dict[str, Any]], data: str, head: str, widths: list[int]) -> GeoPosConfig:
    """The encoding and shift with the lowest mean validation loss among the map's runs."""
    losses: dict[tuple[str, float], list[float]] = {}
    for record in records:
        same = (record["data"], record["head"], record["widths"]) == (data, head, list(widths))
        if same and record["kind"] == "geo":
            losses.setdefault((record["encoding"], record["shift_range"]), []).append(record["scores"]["validation"])
    encoding, shift = min(losses, key=lambda key: fmean(losses[key]))
    return GeoPosConfig(encoding=encoding, shift_range=shift)


def main() -> None:
    args = parse_arguments(CenterOfMassArguments)
    accelerator = begin(args, "paper_center_of_mass")
    task, chosen = build_task(args), {}
    if args.learning_rates:
        run_at_own_rates("center_of_mass", partial(own_rate_trials, args), task, args, accelerator)
        return end_run(accelerator)
    trials = list(map_trials(args))
    records = run_trials(trials, task, args, accelerator, "map")
    if args.stop_at_step is not None and args.stop_at_step < args.steps:
        return
    for data in (EVERYWHERE, HELD_OUT):
        geometry = choose_geometry(records, data, HEAD, args.widths)
        chosen[data] = variant_name("geo", geometry)
        geometries = list(dict.fromkeys([geometry, GeoPosConfig()]))
        trials += variants(data, HEAD, args.widths, geometries, args.seeds)
        trials += matched_variants(args, data, geometry)
    for label, more in (("comparison", []), ("sweep and rest of the map", other_trials(args))):
        trials += more
        records = run_trials(trials, task, args, accelerator, label)
        if accelerator.is_main_process:
            write_results("center_of_mass", records, args, head=HEAD, chosen_on_validation=chosen)
            print(f"wrote {len(records)} runs to {args.results}")
    end_run(accelerator)


if __name__ == "__main__":
    run_script(main)
