"""Pictures of the demo's page: loss curves, score bars, what the detector saw, and base and adapter side by side."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from geopos_diffusers.files import atomic_path
from geopos_diffusers.images.box_drawing import draw_boxes
from geopos_diffusers.images.contact_sheet import contact_sheet
from geopos_diffusers.metrics.report import JSON_FILE
from geopos_diffusers.metrics.report_document import read_document
from geopos_diffusers.metrics.report_sheet import annotate
from geopos_diffusers.training.loss_log import read_losses, running_mean

from ..frames.data import read_rows
from .scores import ARM_NAMES, KID_NAME, RENDERED, SCORES, TRAINED

COLORS = {"base": "#777777", "geometry": "#1b6ca8", "bias": "#d1711a", "lora": "#3c8d40", RENDERED: "#bbbbbb"}
CELL, DETECTOR_CELL = 192, 96


def asked_rows(output: Path, count: int) -> list[dict]:
    """The first rows that every arm drew, by their file names, each with the box that the reference has."""
    rows = zip(read_rows(output / "base" / "images")[:count], read_rows(output / "reference"), strict=False)
    return [drawn | {"box": asked["box"]} for drawn, asked in rows]


def boxed(folder: Path, row: dict) -> Image.Image:
    """A row's picture, enlarged, with the box that was asked for."""
    with Image.open(folder / row["file_name"]) as image:
        return draw_boxes(image.resize((CELL, CELL), Image.Resampling.NEAREST), [row["box"]], CELL)


def save_comparison(output: Path, count: int) -> None:
    """comparison.png: the first pictures of each arm, a row each, with the boxes that were asked for."""
    rows = asked_rows(output, count)
    pictures = [boxed(output / name / "images", row) for name in ARM_NAMES for row in rows]
    labels = [f"{label}: {row['text']}" for label in ARM_NAMES.values() for row in rows]
    sheet = contact_sheet(pictures, labels, columns=len(rows), cell=CELL)
    with atomic_path(output / "comparison.png") as temporary:
        sheet.save(temporary)


def loss_curves(output: Path) -> bytes:
    """SVG of the three trainings: the mean loss of the last twentieth of the run at each step."""
    figure, axes = new_figure(2.8)
    for name in TRAINED:
        losses = read_losses(output / name / "train" / "losses.jsonl")
        values = running_mean([line["loss"] for line in losses], max(1, len(losses) // 20))
        axes.plot([line["step"] for line in losses], values, color=COLORS[name], label=ARM_NAMES[name])
    axes.set(xlabel="step", ylabel="training loss")
    axes.legend(frameon=False)
    return svg(figure)


def score_bars(summary: dict) -> bytes:
    """SVG of the loss ratio, the overlap with boxes, the fingers and the kernel distance, with 95% intervals."""
    one = {"value": 1.0, "low": 1.0, "high": 1.0}
    panels = {
        "held-out loss, ratio to the base": {"base": one} | summary["loss_ratio"],
        "overlap with the box asked for (IoU)": summary["judged"]["iou"],
        "as many fingers as asked for": summary["judged"]["fingers"],
        KID_NAME: summary["kid"],
    }
    figure, all_axes = new_figure(6.6, len(panels))
    for axes, (title, values) in zip(all_axes, panels.items(), strict=True):
        known = {name: value for name, value in values.items() if value is not None and value["value"] is not None}
        for name, value in known.items():
            label = ARM_NAMES.get(name, name)
            axes.barh(label, value["value"], color=COLORS[name], height=0.7)
            axes.plot([value["low"], value["high"]], [label, label], color="black", linewidth=1.5)
        axes.invert_yaxis()
        axes.set_title(title, loc="left", fontsize=10)
    return svg(figure)


def new_figure(height: float, panels: int = 1) -> tuple:
    """A figure as wide as a telephone's screen, so that its text can be read there too."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, height), layout="constrained")
    axes = figure.subplots(panels)
    for each in np.ravel(axes):
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def svg(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()


def detector_pictures(output: Path, name: str, count: int) -> list[tuple[Image.Image, str]]:
    """The first `count` pictures of an arm with the landmarks that were found, and what was asked for and counted."""
    evaluation = read_document(output / SCORES / JSON_FILE)
    folder = next(folder for folder in evaluation["folders"] if folder["name"] == name)
    pictures = []
    for row in sorted(folder["images"], key=lambda row: row["file_name"])[:count]:
        image = annotate(output / name / "images", row).resize((DETECTOR_CELL, DETECTOR_CELL), Image.Resampling.LANCZOS)
        asked = "-" if row["expected"]["fingers"] is None else row["expected"]["fingers"]
        outcome = f"counted {row['counted']}" if row["hands"] else "no hand"
        pictures.append((image, f"asked {asked}, {outcome}"))
    return pictures
