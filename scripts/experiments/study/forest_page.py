"""study.html: the page of the study in one file, with a forest plot and a gallery of each task."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t as student_t

from geopos_diffusers.metrics.report_page import self_contained_page

from ..page import Block, Picture, html_blocks
from ..results import scores
from ..statistics import UPPER_TAIL
from .chapters import Chapter
from .measures import measure_of
from .task_results import TaskResults

WEB = Path(__file__).with_name("web")
IMAGES = "'self' file: data:"  # pictures beside the page, also where it is opened from a disk


def build_page(title: str, summary: Sequence[Block], chapters: Sequence[Chapter], data: dict[str, Any]) -> str:
    """The HTML. data: of `page_data`. Pictures are left to its gallery."""
    first, *more = html_blocks(summary)
    return self_contained_page(
        WEB,
        ["study.js"],
        data,
        IMAGES,
        title=html.escape(title),
        summary="\n".join([f'<div class="answer">{first}</div>', *more]),
        chapters="\n".join(chapter_html(chapter) for chapter in chapters),
    )


def chapter_html(chapter: Chapter) -> str:
    shown = [block for block in chapter.blocks if not (chapter.of_task and isinstance(block, Picture))]
    kind = f' class="{chapter.style}"' if chapter.style else ""
    heading = f"<h2>{html.escape(chapter.title)}</h2>"
    return "\n".join([f"<section{kind}>", heading, *html_blocks(shown), "</section>"])


def page_data(tasks: Sequence[TaskResults], pictures: dict[str, list[Picture]]) -> dict[str, Any]:
    """What the script needs of the tasks that were run: every arm's scores by seed. pictures: of each task, by name."""
    run = [task for task in tasks if task.results is not None]
    most = max((len(scores_by_seed) for task in run for scores_by_seed in _all_scores(task)), default=2)
    return {
        "tasks": [task_data(task, pictures[task.name]) for task in run],
        # By the number of values, from two: a seed less than that are the degrees of freedom.
        "t_quantiles": [float(student_t.ppf(UPPER_TAIL, count - 1)) for count in range(2, max(most, 2) + 1)],
    }


def task_data(task: TaskResults, pictures: Sequence[Picture]) -> dict[str, Any]:
    measures = [(name, measure_of(name)) for name in task.scores]
    return {
        "name": task.name,
        "title": task.title,
        "primary": task.primary,
        "base": task.base,
        "measures": [
            {"name": name, "label": one.label, "better": one.better, "digits": one.digits} for name, one in measures
        ],
        "arms": [
            {"name": arm, "trained": arm in task.trained, "scores": arm_scores(task, arm)} for arm in task.measured
        ],
        "pictures": [{"file": picture.file, "caption": picture.caption} for picture in pictures],
    }


def arm_scores(task: TaskResults, arm: str) -> dict[str, dict[int, float]]:
    """By measure and seed; without measures that no run has."""
    found = {name: scores(task.known_runs(arm, name), name) for name in task.scores}
    return {name: by_seed for name, by_seed in found.items() if by_seed}


def _all_scores(task: TaskResults) -> list[dict[int, float]]:
    return [by_seed for arm in task.measured for by_seed in arm_scores(task, arm).values()]
