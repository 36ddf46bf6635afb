"""The box for practitioners: when to use geometry, at which rate, for how many steps, alone or with LoRA."""

from collections.abc import Mapping, Sequence

from ..arms_page import difference, estimate_cell, rate_cell
from ..page import Block, Paragraph, Table
from ..verdict import comparison_texts
from .arms import LORA_4, PRIMARY
from .comparisons import IN_PART, NO, OTHER_WAY, YES, Comparison, in_words, task_verdict
from .measures import measure_of
from .task_results import TaskResults

ALONE, BESIDE_LORA, BESIDE_WHOLE = GEOMETRY = tuple(dict.fromkeys(first for first, _ in PRIMARY))
CHEAPEST = PRIMARY[0][1]
CHOICES = ((BESIDE_LORA, ALONE), (BESIDE_LORA, LORA_4))  # what tells whether to train both
RULES = {
    YES: "Use geometry for {}: it beats every control that it was compared with.",
    IN_PART: "For {} it depends on what else you would train: see the comparisons.",
    NO: "For {} train a control instead: geometry was not shown to be better.",
    OTHER_WAY: "Do not use geometry for {}: its controls do better.",
}


def advice_blocks(found: Sequence[tuple[TaskResults, list[Comparison]]]) -> list[Block]:
    """Args:
    found: tasks with their primary comparisons.
    """
    by_verdict: dict[str, list[str]] = {}
    for task, comparisons in found:
        by_verdict.setdefault(task_verdict(comparisons), []).append(task.name)
    rules = [rule.format(in_words(by_verdict[verdict])) for verdict, rule in RULES.items() if verdict in by_verdict]
    if not rules:
        rules = ["No task has five seeds of geometry and a control yet: too few for advice."]
    measured = [task for task, _ in found if any(name in task.variants for name in GEOMETRY)]
    blocks: list[Block] = [Paragraph(" ".join(rules))]
    if measured:
        blocks.append(rates_table(measured))
    return [*blocks, *(Paragraph(text) for task in measured for text in joint_texts(task))]


def rates_table(tasks: Sequence[TaskResults]) -> Table:
    """Which rate and how many steps the study used, and what a step costs beside the cheapest control's."""
    rows = [
        [task.name, *(rate_of(task.variants, name) for name in GEOMETRY), f"{task.steps:,}", cost(task)]
        for task in tasks
    ]
    return Table(["task", *(f"rate, {name}" for name in GEOMETRY), "steps", f"step, as a ratio to {CHEAPEST}"], rows)


def rate_of(variants: Mapping[str, dict], name: str) -> str:
    return rate_cell(variants[name]) if name in variants else ""


def cost(task: TaskResults) -> str:
    """Time of a step with geometry alone beside that of the cheapest control; empty where one is not known."""
    seconds = [task.step_seconds(name) for name in (ALONE, CHEAPEST)]
    return "" if None in seconds else f"{seconds[0] / seconds[1]:.2f}"


def joint_texts(task: TaskResults) -> list[str]:
    """Whether LoRA with geometry is better than either alone, by the primary score."""
    compared = [pair for pair in CHOICES if all(task.known_runs(name, task.primary) for name in pair)]
    measure = measure_of(task.primary)
    estimates = [
        difference([run for name in pair for run in task.known_runs(name, task.primary)], *pair, task.primary)
        for pair in compared
    ]
    texts = comparison_texts(estimates, [other for _, other in compared])
    return [
        f"{task.name}: {measure.label} of {BESIDE_LORA} is {text}; {estimate_cell(one, '+' + measure.style)}, "
        f"{measure.better} is better."
        for text, one in zip(texts, estimates, strict=True)
    ]
