"""What the page says of one task: comparisons, tables of arms and sweeps, and pictures."""

import math
from collections.abc import Sequence
from pathlib import Path

from ..arms_page import difference, estimate_cell, rate_cell
from ..page import Block, Paragraph, Picture, Table
from ..results import mean_score, select
from .comparisons import NOT_RUN, Comparison
from .measures import measure_of, split_size
from .task_results import TaskResults

BASE_SCORES = ("loss", "forgetting")  # shown beside the primary score


def task_blocks(task: TaskResults, comparisons: Sequence[Comparison], bands: Path | None, folder: Path) -> list[Block]:
    """Args:
    bands: the figure of losses by noise level, if there is one. folder: of the page, which pictures are linked from.
    """
    blocks: list[Block] = [Paragraph(introduction(task))]
    if task.results is None:
        return [*blocks, Paragraph(f"Not run yet: {task.file.name} is not there.")]
    if task.missing:
        blocks.append(Paragraph(f"Not run yet: {'; '.join(task.missing)}."))
    blocks += [Paragraph(comparison_text(task, one)) for one in comparisons]
    blocks.append(arms_table(task))
    if failed := failures(task):
        blocks.append(Paragraph(failed))
    blocks += other_scores(task)
    blocks.append(secondary_table(task, comparisons))
    blocks += sweeps(task)
    return [*blocks, *pictures(task, bands, folder)]


def introduction(task: TaskResults) -> str:
    measure = measure_of(task.primary)
    text = f"{task.question} Primary score: {measure.label} ({measure.better} is better)."
    if task.results is None:
        return text
    swept = any(arm["sweep"] for arm in task.variants.values())
    return f"{text} Each arm was trained for {task.steps:,} steps.{'' if swept else ' The rates were not swept.'}"


def comparison_text(task: TaskResults, one: Comparison) -> str:
    """A primary comparison as a sentence, with its figures."""
    first, control = one.pair
    if one.verdict == NOT_RUN:
        return f"**{first}** and {control}: not run yet."
    figures = [f"difference {estimate_cell(one.estimate, '+' + measure_of(task.primary).style)}"]
    figures += [] if one.effect_size is None else [f"d_z = {one.effect_size:+.2f}"]
    figures += [] if one.p is None else [f"p = {one.p:.3f}" if one.p >= 0.0005 else "p < 0.001"]
    figures.append(f"n = {one.estimate.count}")
    label = measure_of(task.primary).label
    text = f"{label[0].upper()}{label[1:]} of **{first}**: {one.text}"
    return f"{text}; {', '.join(figures)}. Geometry is better: **{one.verdict}**."


def score_cell(task: TaskResults, variant: str, score: str) -> str:
    return estimate_cell(mean_score(task.known_runs(variant, score), score), measure_of(score).style)


def arms_table(task: TaskResults) -> Table:
    """Size and speed of each arm, and its most important scores."""
    shown = list(dict.fromkeys(name for name in (task.primary, *BASE_SCORES) if name in task.scores))
    head = ["arm", "parameters", "bytes", "best rate", "seconds a step", "seeds", *(measure_of(n).label for n in shown)]
    rows = [[name, *size_cells(task, name), *(score_cell(task, name, n) for n in shown)] for name in task.measured]
    return Table(head, [row for row in rows if any(row[1:])])


def failures(task: TaskResults) -> str:
    """Which runs ended worse than the base, and the means of the others; empty without such."""
    runs = [run for name in task.trained for run in task.known_runs(name, "loss")]
    if task.base is None or not (failed := [run for run in runs if run["scores"]["loss"] > 1]):
        return ""
    told = "; ".join(f"{run['variant']}, seed {run['seed']} ({run['scores']['loss']:.3f})" for run in failed)
    means = []
    for name in dict.fromkeys(run["variant"] for run in failed):
        if left := [run for run in select(runs, variant=name) if run not in failed]:
            means.append(f"{name} {mean_score(left, 'loss').value:.3f} ({len(left)} seeds)")
    others = f" Loss ratio of the other seeds: {'; '.join(means)}." if means else ""
    return f"Failed, with a loss above the base's: {told}. They count in all means and comparisons.{others}"


def size_cells(task: TaskResults, name: str) -> list[str]:
    """Parameters, bytes, best rate, seconds a step and number of seeds; empty where they are not known."""
    runs, arm = select(task.runs, variant=name), task.variants.get(name)
    if arm is None:
        return ["", "", "", "", ""]
    sizes = sorted({run["bytes"] for run in runs if "bytes" in run})
    return [
        f"{arm['parameters']:,}",
        ", ".join(f"{size:,}" for size in sizes),
        rate_cell(arm),
        "" if (seconds := task.step_seconds(name)) is None else f"{seconds:.2f}",
        str(len(runs)),
    ]


def other_scores(task: TaskResults) -> list[Block]:
    """The scores that the first table does not have; those of each size of drawn images in a table of their own."""
    groups: dict[str | None, list[str]] = {}
    for score in task.scores:
        if score not in (task.primary, *BASE_SCORES):
            groups.setdefault(split_size(score)[0], []).append(score)
    blocks: list[Block] = []
    for size, names in groups.items():
        if size is not None:
            blocks.append(Paragraph(f"Images drawn at {size} pixels (height x width):"))
        head = ["arm", *(measure_of(split_size(name)[1]).label for name in names)]
        cells = [[arm, *(score_cell(task, arm, name) for name in names)] for arm in task.measured]
        blocks.append(Table(head, [row for row in cells if any(row[1:])]))
    return blocks


def secondary_table(task: TaskResults, comparisons: Sequence[Comparison]) -> Table:
    """Differences of the primary pairs in all scores, without tests."""
    pairs = [one.pair for one in comparisons if one.verdict != NOT_RUN]
    rows = []
    for score in task.scores:
        measure = measure_of(score)
        estimates = [
            difference([run for name in pair for run in task.known_runs(name, score)], *pair, score) for pair in pairs
        ]
        cells = [estimate_cell(one, f"+{measure.style}") for one in estimates]
        if any(cells):
            rows.append([f"{measure.label} ({measure.better} is better)", *cells])
    return Table(["difference, not corrected", *(f"{first} - {second}" for first, second in pairs)], rows)


def sweeps(task: TaskResults) -> list[Block]:
    """The losses of the sweeps by rate, and which pilots they are from; nothing where no rates were swept."""
    rows = [
        [
            f"{name} (pilot `{arm['pilot']}`)" if "pilot" in arm else name,
            ", ".join(f"{rate}: {_loss(loss)}" for rate, loss in arm["sweep"].items()),
        ]
        for name, arm in task.variants.items()
        if arm["sweep"]
    ]
    return [Table(["arm", "validation loss, by rate"], rows)] if rows else []


def _loss(value: float | None) -> str:
    return "diverged" if value is None or not math.isfinite(value) else f"{value:.4f}"


def pictures(task: TaskResults, bands: Path | None, folder: Path) -> list[Picture]:
    """Files beside the results, by their path from the page."""
    found = [
        (task.picture, f"{task.title}: {task.caption}"),
        (bands, f"{task.title}: loss by noise level"),
    ]
    return [
        Picture(file.relative_to(folder).as_posix(), caption)
        for file, caption in found
        if file is not None and file.is_file()
    ]
