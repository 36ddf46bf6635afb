"""Parts of the page of an experiment whose arms have rates of their own: statements, and tables of arms and sweeps."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from geopos_diffusers.files import write_text
from geopos_diffusers.metrics.bootstrap import Interval

from .page import markdown_table
from .results import Run, mean_score, pairs, read_results, select
from .statistics import Estimate, difference_estimate
from .verdict import comparison_texts


def estimate_cell(estimate: Interval, style: str = ".3f") -> str:
    """ "0.600 [0.597, 0.604]"; the value alone of a single seed; nothing without one."""
    if estimate.value is None:
        return ""
    ends = "" if estimate.low is None else f" [{estimate.low:{style}}, {estimate.high:{style}}]"
    return f"{estimate.value:{style}}{ends}"


def rate_cell(arm: Mapping[str, Any]) -> str:
    return f"{arm['best_rate']:g}{'' if arm['bracketed'] else ' (not bracketed)'}"


def difference(runs: Sequence[Run], first: str, second: str, measure: str) -> Estimate:
    """Score of the first variant minus that of the second, over the seeds that both have."""
    return difference_estimate(*pairs(*(select(runs, variant=name) for name in (first, second)), measure))


def statements(runs: Sequence[Run], arms: Mapping[str, Any], reference: str, measures: Mapping[str, str]) -> str:
    """What paired differences of one arm from the others show, a line each; Holm's correction is for all.

    Args:
        measures: what to call each score.
    """
    compared = [(measure, name) for measure in measures for name in arms if name != reference]
    estimates = [difference(runs, reference, name, measure) for measure, name in compared]
    texts = comparison_texts(estimates, [name for _, name in compared])
    return "\n".join(
        f"- {measures[measure].capitalize()} of {reference}: {text}."
        for (measure, _), text in zip(compared, texts, strict=True)
    )


def arms_table(runs: Sequence[Run], arms: Mapping[str, Any], measures: Mapping[str, tuple[str, str]]) -> str:
    """A row for each variant, also for those that are not trained.

    Args:
        measures: heading and number format of each score.
    """
    rows = []
    for name in dict.fromkeys(run["variant"] for run in runs):
        arm, own = arms.get(name), select(runs, variant=name)
        known = ["", ""] if arm is None else [f"{arm['parameters']:,}", rate_cell(arm)]
        cells = [
            estimate_cell(mean_score([run for run in own if measure in run["scores"]], measure), style)
            for measure, (_, style) in measures.items()
        ]
        rows.append([name, *known, *cells])
    return markdown_table(["arm", "trained parameters", "best rate", *(head for head, _ in measures.values())], rows)


def sweeps_table(arms: Mapping[str, Any], head: str, style: str = ".4f") -> str:
    rows = [
        [name, ", ".join(f"{rate}: {value:{style}}" for rate, value in arm["sweep"].items())]
        for name, arm in arms.items()
    ]
    return markdown_table(["arm", head], rows)


def write_pages(description: str | None, experiment: str, page: Callable[[dict, Path], str]) -> None:
    """A program that writes the page of each results file beside it. description: of `--help`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="results files; each gets its page beside it")
    for file in parser.parse_args().results:
        write_text(file.with_suffix(".md"), page(read_results(file, experiment), file))
