"""Results files of the laboratory: one schema, written and read here; choosing runs; merging files.

A file says what made it (experiment, command, date, versions, commit, machine) and under which settings, and holds
`runs`. Each run names its `variant`, such as "convolution" or "GeoConv, no shift, matched". Values of the head that a
file of before this schema did not record are null.
"""

import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from geopos_diffusers.errors import DataError
from geopos_diffusers.files import write_text

from .reported_command import reported_command
from .statistics import Estimate, mean_estimate, ratio_estimate

FORMAT_VERSION = 2
Run = dict[str, Any]
DISTINCT = ("variant", "seed", "steps", "task", "data", "head", "widths", "latent_size")  # of runs of one file
# What differs between files of one comparison that can be merged: the circumstances of the runs, not what they measure.
CIRCUMSTANCES = ("command", "commands", "date", "versions", "commit", "machine", "cpu_seconds", "runs")


def results_head(experiment: str) -> dict[str, Any]:
    """What is running: the head of a results file."""
    return {
        "format_version": FORMAT_VERSION,
        "experiment": experiment,
        "command": reported_command(sys.argv),
        "date": date.today().isoformat(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            **{name: _installed_version(name) for name in ("diffusers", "geopos_diffusers")},
        },
        "commit": current_commit(),
        "machine": {
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "device": "cuda" if torch.cuda.is_available() else "cpu",
        },
    }


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def current_commit(folder: Path = Path(__file__).parent) -> str | None:
    """Hash of the checkout's commit, with "-dirty" where tracked files differ from it; None outside a checkout."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return f"{commit}-dirty" if git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.CalledProcessError):
        return None


def write_results(
    path: str | Path, experiment: str, runs: Sequence[Run], settings: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """Write a results file and return what it holds.

    Args:
        runs: each with "variant". Where they have "cpu_seconds", the head has the sum.
        settings: what the runs were made under, without paths of this machine. more: further parts of the file.
    """
    seconds = [run["cpu_seconds"] for run in runs if "cpu_seconds" in run]
    head = results_head(experiment) | ({"cpu_seconds": round(sum(seconds), 1)} if seconds else {})
    results = {**head, "settings": settings, **more, "runs": list(runs)}
    save_results(path, results)
    return results


def commands_with(standing: dict[str, Any] | None) -> list[str]:
    """The commands that made a standing results file, which is added to, and the running one."""
    before = [] if standing is None else commands_of(standing)
    return [*dict.fromkeys([*before, reported_command(sys.argv)])]


def commands_of(results: Mapping[str, Any]) -> list[str]:
    """The commands that made a results file, in their order."""
    return results.get("commands", [results["command"]])


def save_results(path: str | Path, results: dict[str, Any]) -> None:
    """Write a results file's content, one line a run.

    Raises:
        DataError: a run without a variant.
    """
    if unnamed := [run for run in results["runs"] if not run.get("variant")]:
        raise DataError(f"{len(unnamed)} runs name no variant")
    head = {name: value for name, value in results.items() if name != "runs"}
    text = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
    lines = ",\n".join(f"  {json.dumps(run, ensure_ascii=False)}" for run in results["runs"])
    write_text(path, f'{text},\n "runs": [\n{lines}\n ]\n}}\n')


def read_results(path: str | Path, experiment: str) -> dict[str, Any]:
    """Read a results file.

    Raises:
        DataError: it is missing, damaged, of another version of the schema or not of that experiment.
    """
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable results file: {error}") from error
    found = (results.get("format_version"), results.get("experiment")) if isinstance(results, dict) else None
    if found != (FORMAT_VERSION, experiment):
        raise DataError(f"{path} must hold {(FORMAT_VERSION, experiment)} (format, experiment); found {found}")
    return results


def read_standing(path: str | Path, experiment: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    """What stands in a results file that is to be added to; None where there is no file.

    Raises:
        DataError: as `read_results`, or it was measured with other settings.
    """
    if not Path(path).is_file():
        return None
    results = read_results(path, experiment)
    if results["settings"] != settings:
        raise DataError(f"{path} was measured with other settings; give another file of results")
    return results


def rounded(scores: dict[str, float]) -> dict[str, float]:
    """Scores to five digits, which is more than seeds agree in."""
    return {name: float(f"{value:.5g}") for name, value in scores.items()}


def merge_results(results: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """One file's content with the runs of another one of the same experiment and settings, such as those of new seeds.

    The head keeps the first file's commit, versions and machine where both agree, else null; both commands and the
    later date are kept, and processor time is added.

    Raises:
        DataError: other settings, data or figures of real images; or both have a run of one variant and seed.
    """
    names = [name for name in {**results, **more} if name not in CIRCUMSTANCES]
    if different := [name for name in names if results.get(name) != more.get(name)]:
        raise DataError(f"results of different {', '.join(different)} cannot be merged")
    runs = [*results["runs"], *more["runs"]]
    keys = [_identity(run) for run in runs]
    if twice := sorted({f"{run['variant']}, seed {run['seed']}" for run in runs if keys.count(_identity(run)) > 1}):
        raise DataError(f"both results hold {'; '.join(twice)}")
    seconds = [one.get("cpu_seconds") for one in (results, more)]
    order = {variant: number for number, variant in enumerate(dict.fromkeys(run["variant"] for run in runs))}
    commands = dict.fromkeys([*commands_of(results), *commands_of(more)])
    return {
        **{name: value for name, value in results.items() if name != "cpu_seconds"},
        **({"commands": list(commands)} if "commands" in results else {"command": " && ".join(commands)}),
        "date": max(results["date"], more["date"]),
        **{name: _agreed(results[name], more[name]) for name in ("versions", "commit", "machine")},
        **({"cpu_seconds": round(sum(seconds), 1)} if None not in seconds else {}),
        "runs": sorted(runs, key=lambda run: (order[run["variant"]], run["seed"])),
    }


def _identity(run: Run) -> tuple[Any, ...]:
    """What may not be there twice: a variant's seed, on the same data and network."""
    return tuple(str(run.get(name)) for name in DISTINCT)


def _agreed(first: Any, second: Any) -> Any:
    if isinstance(first, dict) and isinstance(second, dict):
        return {name: _agreed(first.get(name), second.get(name)) for name in {**first, **second}}
    return first if first == second else None


def select(runs: Sequence[Run], **wanted: Any) -> list[Run]:
    """The runs that have all these values. A run without a key has None there."""
    return [run for run in runs if all(run.get(key) == value for key, value in wanted.items())]


def by_variant(runs: Sequence[Run], names: Sequence[str]) -> dict[str, list[Run]]:
    """The runs of each variant that has some, each followed by its matched one."""
    found = {name: select(runs, variant=name) for plain in names for name in (plain, f"{plain}, matched")}
    return {name: chosen for name, chosen in found.items() if chosen}


def scores(runs: Sequence[Run], name: str) -> dict[int, float]:
    """One score by seed.

    Raises:
        DataError: two of the runs have the same seed, so they differ in something else.
    """
    found = {run["seed"]: run["scores"][name] for run in runs}
    if len(found) != len(runs):
        raise DataError(f"{len(runs)} runs share {len(found)} seeds; they must differ in the seed alone")
    return found


def pairs(runs: Sequence[Run], others: Sequence[Run], name: str) -> tuple[list[float], list[float]]:
    """One score of both, over the seeds that both have, in the order of the seeds."""
    return paired(scores(runs, name), scores(others, name))


def paired(first: dict[int, float], second: dict[int, float]) -> tuple[list[float], list[float]]:
    """The values of the seeds that both have, in the order of the seeds."""
    seeds = sorted(first.keys() & second.keys())
    return [first[seed] for seed in seeds], [second[seed] for seed in seeds]


def mean_score(runs: Sequence[Run], name: str) -> Estimate:
    """Mean score over seeds."""
    return mean_estimate(list(scores(runs, name).values()))


def score_ratio(runs: Sequence[Run], others: Sequence[Run], name: str) -> Estimate:
    """Geometric mean of the ratios of `runs` to `others`, over the seeds that both have."""
    return ratio_estimate(*pairs(runs, others, name))
