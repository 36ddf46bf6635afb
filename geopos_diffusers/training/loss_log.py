"""losses.jsonl of a run: one line a step, continued exactly after a resume, and drawn as a curve."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ..files import atomic_path, write_text
from ..optional_packages import optional_import

LOSSES = "losses.jsonl"
VALIDATION_LOSSES = "validation_losses.jsonl"  # of the same form, with "validation_loss"


class LossLog:
    """Appends to `losses.jsonl`, or a file of another name, in `folder`: {"step", "loss", ...}, one JSON object a line.

    Lines of steps after `step` are dropped at the start: the run that continues there writes them anew.
    """

    def __init__(self, folder: str | os.PathLike, step: int = 0, name: str = LOSSES) -> None:
        self.path = Path(folder) / name
        kept = [json.dumps(line) + "\n" for line in read_losses(self.path) if line["step"] <= step]
        write_text(self.path, "".join(kept))
        self._file = self.path.open("a", encoding="utf-8", buffering=1)  # written out line by line

    def append(self, **values: float) -> None:
        self._file.write(json.dumps(values) + "\n")


def read_losses(path: str | os.PathLike) -> list[dict]:
    """The lines of a losses.jsonl, without a last one that a crash cut short; empty if there is no such file."""
    path = Path(path)
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def running_mean(values: list[float], window: int) -> list[float]:
    """The mean of each value and up to `window` - 1 values before it."""
    means, total = [], 0.0
    for index, value in enumerate(values):
        total += value - (values[index - window] if index >= window else 0.0)
        means.append(total / min(index + 1, window))
    return means


def draw_loss_curve(losses: list[dict], target: str | os.PathLike, validation: Sequence[dict] = ()) -> None:
    """Write a PNG of the loss per step and its running mean over a twentieth of the run, and of validation losses."""
    with optional_import("the curve of the losses", "train"):
        from matplotlib.figure import Figure

    steps, values = [line["step"] for line in losses], [line["loss"] for line in losses]
    window = max(1, len(values) // 20)
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, values, color="0.75", linewidth=0.8, label="each step")
    axes.plot(steps, running_mean(values, window), color="C0", label=f"mean of {window} steps")
    if validation:
        points = [(line["step"], line["validation_loss"]) for line in validation]
        axes.plot(*zip(*points, strict=True), color="C1", marker="o", label="validation")
    axes.set(xlabel="step", ylabel="loss")
    axes.legend()
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
