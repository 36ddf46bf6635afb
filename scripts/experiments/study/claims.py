"""What the study says of the paper's open question Q3: geometry in pretrained models, beside its controls."""

from pathlib import Path

from ..arms_page import estimate_cell
from ..page import ClaimRow, Headline, Section
from .comparisons import Comparison, better, primary_comparisons
from .measures import measure_of
from .task_results import TaskResults, read_tasks


def build_sections(folder: Path) -> list[Section]:
    """A section for each task with results, of rows alone: the study has a page of its own. folder: docs/results."""
    sections = []
    for task in read_tasks(folder):
        if task.results is not None:
            rows = [claim_row(task, one) for one in primary_comparisons(task) if one.estimate.count]
            sections.append(Section(task.title, "", task.results["date"], 0.0, rows))
    return sections


def claim_row(task: TaskResults, one: Comparison) -> ClaimRow:
    (first, control), measure = one.pair, measure_of(task.primary)
    figures = estimate_cell(one.estimate, f"+{measure.style}")
    claim = f"a pretrained diffusion model, {first}: better than {control}"
    place = f"{task.name}, difference of {measure.label}"
    return ClaimRow(
        "Q3",
        claim,
        "open",
        figures,
        one.estimate.count,
        f"{task.title}; {task.steps} steps",
        better(task, one.estimate),
        Headline(claim, place, figures),
    )
