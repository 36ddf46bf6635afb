"""Pictures of the demo's page: loss curves, score bars, what the detector saw, and base and adapter side by side."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from geopos_diffusers.files import atomic_path
from geopos_diffusers.images.contact_sheet import contact_sheet
from geopos_diffusers.metrics.report import JSON_FILE
from geopos_diffusers.metrics.report_document import read_document
from geopos_diffusers.metrics.report_sheet import annotate
from geopos_diffusers.training.loss_log import read_losses, running_mean

from .scores import ARM_NAMES, KID_NAME, SCORES, TRAINED

COLORS = {"base": "#777777", "geometry": "#1b6ca8", "bias": "#d1711a", "lora": "#3c8d40", "rendered": "#bbbbbb"}
DETECTOR_CELL = 96


def read_rows(folder: Path) -> list[dict]:
    """The rows of a folder's metadata.jsonl."""
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two images as one."""
    joined = Image.new("RGB", (left.width + right.width, left.height))
    joined.paste(left, (0, 0))
    joined.paste(right, (left.width, 0))
    return joined


def save_comparison(output: Path, count: int) -> None:
    """comparison.png: the first pictures of base (left) and geometry (right), with their prompts."""
    rows = read_rows(output / "geometry" / "images")[:count]
    pairs = [
        side_by_side(*(Image.open(output / name / "images" / row["file_name"]) for name in ("base", "geometry")))
        for row in rows
    ]
    sheet = contact_sheet(pairs, [row["text"] for row in rows], columns=4, cell=4 * pairs[0].height)
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
    """SVG of the loss ratio, the fading of backgrounds, the kernel distance and hands, with 95% intervals."""
    one = {"value": 1.0, "low": 1.0, "high": 1.0}
    panels = {
        "held-out loss, ratio to the base": {"base": one} | summary["loss_ratio"],
        "fall in brightness, top to bottom": summary["fall"],
        KID_NAME: summary["kid"],
        "hand found, finger count right": summary["found_and_right"],
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
