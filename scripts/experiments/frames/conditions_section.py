"""What the page says of boxes and images beyond those of the training, and of the packaged adapter."""

from pathlib import Path
from typing import Any

from ..page import markdown_table
from ..results import commands_of, read_results, select
from .generalisation import EXPERIMENT
from .score_cells import COLUMNS, score_cell

# Scores that some conditions have.
SOMETIMES = {
    "first_iou": "IoU with the first box",
    "left_found": "found in the left half",
    "right_found": "found in the right half",
}


def generalisation(folder: Path) -> str:
    """What frames do beyond what was trained, and what the packaged adapter does; empty where it was not measured."""
    text = ""
    if (file := folder / "frames_generalisation.json").is_file():
        results = read_results(file, EXPERIMENT)
        settings = results["settings"]
        text += f"""
## Beyond what was trained

"frames, whole" after {settings["steps"]} steps ({training_seeds(results)}) draws {settings["test_images"]} test rows in
other boxes and sizes. Of a box that reaches outside the image, the part inside is what is asked for. A box that moves
lies on the other side of the image, across and down, until it moves to where the scores expect it. Of two boxes each
half of the image has one; each half is judged as an image, and both hands are asked to have the prompt's number of
fingers.

{conditions(results)}
"""
    if (file := folder / "frames_adapter.json").is_file():
        results = read_results(file, EXPERIMENT)
        text += f"""
## The packaged adapter

The same of `{results["settings"]["adapter"]}`, which [comes with the package](../pretrained_model.md).

{conditions(results)}
"""
    return text


def training_seeds(results: dict[str, Any]) -> str:
    seeds = sorted({run["seed"] for run in results["runs"]})
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))} of the training"


def conditions(results: dict[str, Any]) -> str:
    """The command, and a table of boxes and images."""
    runs = results["runs"]
    names = ("correlation_x", "correlation_y", "iou", "centre_error", "found", "fingers")
    rows = []
    for name in dict.fromkeys(run["variant"] for run in runs):
        own = select(runs, variant=name)
        more = [score_cell(own, score) if score in own[0]["scores"] else "" for score in SOMETIMES]
        rows.append([name, *(score_cell(own, score) for score in names), *more])
    head = ["boxes and images", *(COLUMNS[name] for name in names), *SOMETIMES.values()]
    commands = "\n".join(commands_of(results))
    return f"```bash\n{commands}\n```\n\n{markdown_table(head, rows)}"
