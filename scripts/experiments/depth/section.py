"""The part of claim C6 that a summary of the paper mentions: monocular depth, of rendered hands and heads."""

from pathlib import Path
from typing import Any

import numpy as np

from geopos_diffusers.files import atomic_path
from geopos_diffusers.metrics.bootstrap import Interval

from ..page import ClaimRow, Headline, Paragraph, Picture, Place, Section, Table, format_interval
from ..results import Run, by_variant, mean_score, score_ratio, select
from ..verdict import Effect

METRIC = "abs_rel"
DEFAULT = "GeoConv"
VARIANTS = ("convolution", "CoordConv", "GeoConv, no shift", DEFAULT)
OTHERS = ("convolution", "CoordConv")  # that GeoConv is compared with


def compared(results: dict[str, Any], data: str) -> dict[str, list[Run]]:
    """The runs of each variant on `data`, as `by_variant` names them."""
    return by_variant(select(results["runs"], data=data), VARIANTS)


def build_section(results: dict[str, Any], place: Place) -> Section:
    settings, units, figure = results["settings"], results["units"], place.figure(".png")
    title = f"Depth, {settings['steps']} steps (C6)"
    section = Section(title, results["command"], results["date"], results["cpu_seconds"], claim_rows(results))
    draw_curves(results, figure)
    section.blocks = [
        Paragraph(
            f"Rendered images of {settings['size']} x {settings['size']} pixels, {settings['train_count']} to train "
            f"and {settings['test_count']} to test for each kind of data. What is predicted is metric depth: the "
            f"distance from the camera along its axis, in {units['hands']} for hands and {units['heads']} for heads. "
            f"The lens is fixed (focal length {results['focal']:g} image sides) and the distance varies by more than a "
            "factor of two, so it shows in the apparent size, given the pose (all hands have a palm of length 1) or "
            "the age (heads are as large as they are). The loss is the scale-invariant one of log-depth of Eigen et "
            "al. (arXiv 1406.2283, lambda 0.5). Loss and errors are of the foreground alone; an error is the mean over "
            "images of each image's: **AbsRel**, mean of |predicted - true| / true; **RMSE**, in the data's unit; "
            "**delta**, share of pixels where the larger of predicted / true and true / predicted is below 1.25 or "
            "1.05. The **constant** is the mean depth of the training images, near which all networks start."
        ),
        Paragraph(
            f"An encoder of {len(settings['widths'])} strided 3x3 convolutions of {settings['widths']} channels, and a "
            f"decoder with skips; {settings['steps']} steps of {settings['batch_size']}, the same budget and learning "
            "rate for all kinds, chosen on validation images with the plain convolution. **Matched** has the last "
            "layer of the encoder widened to CoordConv's number of parameters. The digest of the paper at hand has no "
            "data, network or figure for depth: all of this is our reading, and a small task."
        ),
        *(error_table(results, data) for data in units),
        Picture(figure.name, "AbsRel on test images while training: thin lines for seeds, thick for their mean"),
        *place.published(
            "_samples.png",
            "The first test images, their depth and the predictions of the first seed's networks, with AbsRel: near is "
            "yellow, far is blue, over the range of each image",
        ),
    ]
    return section


def claim_rows(results: dict[str, Any]) -> list[ClaimRow]:
    rows = []
    for data in results["units"]:
        variants = compared(results, data)
        for other in OTHERS:
            ratio = score_ratio(variants[DEFAULT], variants[other], METRIC)
            rows.append(
                ClaimRow(
                    "C6",
                    f"monocular depth: AbsRel of GeoConv by that of {other}",
                    "mentioned, no figure",
                    format_interval(ratio),
                    ratio.count,
                    f"{data}; product, shift 0.25; {results['settings']['steps']} steps",
                    Effect(ratio, "less", 1),
                    Headline(f"depth: smaller error (AbsRel) than {other}", data, format_interval(ratio)),
                )
            )
    return rows


def error_table(results: dict[str, Any], data: str) -> Table:
    """All errors of the variants and of the constant."""
    variants = compared(results, data)
    shown = {"abs_rel": ("AbsRel", 1, True), "rmse": (f"RMSE, {results['units'][data]}", 3, False)}
    shown |= {f"delta_{threshold}": (f"delta < {threshold}", 1, True) for threshold in ("1.25", "1.05")}
    values = {metric: Interval(*[results["constant"][data][metric]] * 3) for metric in shown}
    cells = [format_interval(values[metric], *style) for metric, (_, *style) in shown.items()]
    rows = [("constant", "1", "", *cells, "", "")]
    for name, runs in variants.items():
        cells = [format_interval(mean_score(runs, metric), *style) for metric, (_, *style) in shown.items()]
        ratios = [format_interval(score_ratio(runs, variants[other], METRIC)) for other in OTHERS]
        rows.append((name, f"{runs[0]['parameters']:,}", str(len(runs)), *cells, *ratios))
    titles = [title for title, *_ in shown.values()]
    return Table((data, "parameters", "seeds", *titles, "AbsRel by convolution's", "AbsRel by CoordConv's"), rows)


def draw_curves(results: dict[str, Any], target: Path) -> None:
    """One panel for each kind of data."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8), layout="constrained")
    panels = figure.subplots(1, len(results["units"]), squeeze=False)[0]
    for axes, data in zip(panels, results["units"], strict=True):
        variants = compared(results, data)
        for color, name in enumerate(VARIANTS):
            runs = variants.get(name, [])
            curves = [(run["curves"]["step"], run["curves"][METRIC]) for run in runs if "curves" in run]
            for steps, values in curves:
                axes.plot(steps, values, color=f"C{color}", linewidth=0.6, alpha=0.5)
            if curves:
                mean = np.mean([values for _, values in curves], axis=0)
                axes.plot(curves[0][0], mean, color=f"C{color}", linewidth=2, label=name)
        axes.axhline(results["constant"][data][METRIC], color="black", linestyle=":", linewidth=1, label="constant")
        axes.set(title=data, xlabel="step", ylabel="AbsRel", ylim=(0, None))
    panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
