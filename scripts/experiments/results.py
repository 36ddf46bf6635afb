"""Results files of comparisons: reading them, choosing runs, and intervals over seeds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.bootstrap import Interval, bootstrap_interval, mean
from geopos_diffusers.patching.config import GeoPosConfig

FORMAT_VERSION = 1
Run = dict[str, Any]
KIND_NAMES = {"conv": "convolution", "coord": "CoordConv", "geo": "GeoConv"}
GEOMETRY = ("encoding", "normalization", "shift_range", "shift_scope", "shift_unit", "border")


def read_results(path: str | Path, experiment: str) -> dict[str, Any]:
    """Read a results file.

    Raises:
        DataError: it is missing, damaged, or not of that experiment.
    """
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable results file: {error}") from error
    found = (results.get("format_version"), results.get("experiment")) if isinstance(results, dict) else None
    if found != (FORMAT_VERSION, experiment):
        raise DataError(f"{path} must hold {(FORMAT_VERSION, experiment)} (format, experiment); found {found}")
    return results


def select(runs: Sequence[Run], **wanted: Any) -> list[Run]:
    """The runs that have all these values. A run without a key has None there."""
    return [run for run in runs if all(run.get(key) == value for key, value in wanted.items())]


def by_variant(runs: Sequence[Run], variants: dict[str, dict[str, Any]], widths: list[int]) -> dict[str, list[Run]]:
    """The runs of each variant; those of other widths, with equal numbers of parameters, as "NAME, matched".

    Args:
        variants: what `select` needs, by name. widths: of the plain networks.
    """
    narrow, wide = select(runs, widths=widths), [run for run in runs if run["widths"] != widths]
    found = {}
    for name, options in variants.items():
        found[name] = select(narrow, **options)
        found[f"{name}, matched"] = select(wide, **options)
    return {name: chosen for name, chosen in found.items() if chosen}


def geometry(**changes: Any) -> dict[str, Any]:
    """What `select` needs to find GeoConv runs with the default channel but for `changes`."""
    default = GeoPosConfig()
    return {"kind": "geo", **{name: getattr(default, name) for name in GEOMETRY}, **changes}


def scores(runs: Sequence[Run], name: str) -> dict[int, float]:
    """One score by seed.

    Raises:
        DataError: two of the runs have the same seed, so they differ in something else.
    """
    found = {run["seed"]: run["scores"][name] for run in runs}
    if len(found) != len(runs):
        raise DataError(f"{len(runs)} runs share {len(found)} seeds; they must differ in the seed alone")
    return found


def mean_interval(runs: Sequence[Run], name: str) -> Interval:
    """Mean score with its 95% interval over seeds."""
    return bootstrap_interval(mean, np.array(list(scores(runs, name).values())), seed=0)


def ratio_interval(runs: Sequence[Run], others: Sequence[Run], name: str) -> Interval:
    """Mean score of `runs` by that of `others`, over the seeds that both have, which are resampled in pairs.

    Resamples in which that of `others` is 0 are left out.
    """
    first, second = scores(runs, name), scores(others, name)
    pairs = np.array([(first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())])
    with np.errstate(divide="ignore", invalid="ignore"):
        return bootstrap_interval(lambda rows: rows[:, 0].mean() / rows[:, 1].mean(), pairs, seed=0)


def difference_interval(runs: Sequence[Run], name: str, other: str) -> Interval:
    """Mean over seeds of score `name` minus score `other` of the same run."""
    first, second = scores(runs, name), scores(runs, other)
    return bootstrap_interval(mean, np.array([first[seed] - second[seed] for seed in first]), seed=0)
