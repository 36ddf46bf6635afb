"""The chapters of the study's page, which both its forms share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..page import Block, Paragraph, Table, minutes
from ..results import commands_of
from .advice import advice_blocks
from .comparisons import NOT_RUN, Comparison, answer, task_verdict
from .measures import measure_of
from .task_results import TaskResults

Compared = Sequence[tuple[TaskResults, list[Comparison]]]  # tasks with their primary comparisons
METHOD = (
    "Unless a task says otherwise, each arm has its own learning rate, by a sweep on validation images. The seeds "
    "of the trainings are others. All arms share them, the batches and the noise. In brackets: 95% intervals over "
    "the seeds (Student's t), not corrected. Whether an arm is better is said of paired differences with p values "
    "below 0.05, corrected by Holm's method for the comparisons of a task; fewer than five seeds are suggestive. "
    "d_z is the mean of the paired differences divided by their standard deviation. Losses and forgetting are "
    "ratios to those of the model without training; drift is the mean squared change of the prediction, as a share of "
    "that model's loss on the same images. Seconds a step are wall-clock time of the fastest seed; the "
    "machine may have had other work."
)


@dataclass(frozen=True)
class Chapter:
    """style: of the HTML. of_task: whether its pictures are a task's, which the HTML shows in its gallery."""

    title: str
    blocks: Sequence[Block]
    style: str = ""
    of_task: bool = False


def summary_blocks(found: Compared) -> list[Block]:
    """The answer first, then what it is made of."""
    rows = [
        [task.name, task.title, measure_of(task.primary).label, pairs_text(comparisons), task_verdict(comparisons)]
        for task, comparisons in found
    ]
    return [
        Paragraph(f"**{answer({task.name: comparisons for task, comparisons in found})}**"),
        Paragraph(METHOD),
        Table(["task", "what it is", "primary score", "geometry beats its control", "verdict"], rows),
    ]


def pairs_text(comparisons: Sequence[Comparison]) -> str:
    """ "geometry - bias: yes; ..." """
    if all(one.verdict == NOT_RUN for one in comparisons):
        return ""
    return "; ".join(f"{first} - {second}: {one.verdict}" for one in comparisons for first, second in [one.pair])


def advice_chapter(found: Compared) -> Chapter:
    return Chapter("For practitioners", advice_blocks(found), "advice")


def commands_chapter(tasks: Sequence[TaskResults], mechanism: dict[str, Any] | None, command: str) -> Chapter:
    """What made the results, and this page. command: of the page."""
    rows = [[task.name, *circumstances(task.results, task)] for task in tasks if task.results is not None]
    if mechanism is not None:
        rows.append(["mechanism", *circumstances(mechanism)])
    head = ["results", "command", "date", "commit", "seeds", "machine", "CPU time"]
    note = (
        "Date and commit are of the run that wrote the file last. Where a file does not record processor "
        "time, the wall-clock time of the trainings at the best rates is shown, without sweeps and images."
    )
    return Chapter("Commands", [Paragraph(f"This page: `{command}`"), Table(head, rows), Paragraph(note)])


def circumstances(results: dict[str, Any], task: TaskResults | None = None) -> list[str]:
    trained = [run for run in results["runs"] if task is None or run["variant"] in task.trained]
    seeds = ", ".join(map(str, sorted({run["seed"] for run in trained if "seed" in run})))
    sweep = results["settings"].get("sweep_seed")
    machine = results["machine"]
    return [
        "; ".join(f"`{command}`" for command in commands_of(results)),
        results["date"],
        short_commit(results["commit"]),
        seeds if sweep is None else f"{seeds} (sweeps: {sweep})",
        f"{machine['processor']}, {machine['device']}, threads: {machine['threads']}" if machine else "",
        time_text(results),
    ]


def short_commit(commit: str | None) -> str:
    if commit is None:
        return ""
    return f"{commit[:10]}-dirty" if commit.endswith("-dirty") else commit[:10]


def time_text(results: dict[str, Any]) -> str:
    if "cpu_seconds" in results:
        return minutes(results["cpu_seconds"])
    seconds = sum(run.get("seconds", 0.0) for run in results["runs"])
    return f"trainings {minutes(seconds)}" if seconds else ""
