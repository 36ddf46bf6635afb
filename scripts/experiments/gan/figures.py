"""Figures and late scores of the GAN experiment's results."""

from pathlib import Path
from statistics import fmean
from typing import Any

from geopos_diffusers.files import atomic_path

from .collapse import Collapse, surviving_share

PAPER_EPOCHS = (30, 250, 300, 450, 1000)  # those that the paper names; 30 for CoordConv, 250 to 300 for convolutions
PANELS = {
    "covered": "share of bins covered",
    "jensen_shannon": "Jensen-Shannon divergence [bit]",
    "recall": "recall",
    "coverage": "coverage",
    "vendi": "Vendi score",
    "ms_ssim": "mean MS-SSIM of pairs",
}
COLORS = {
    "convolution": "C0",
    "CoordConv": "C1",
    "GeoConv": "C2",
    "GeoConv, no shift": "C3",
    "convolution, matched": "C4",
    "GeoConv, matched": "C5",
}


def variants_of(results: dict[str, Any]) -> list[str]:
    """The variants that have runs, in their order."""
    return list(dict.fromkeys(run["variant"] for run in results["runs"]))


def late_scores(run: dict[str, Any]) -> dict[str, float]:
    """Each score's mean over the evaluations in the last fifth of the epochs."""
    epochs = run["curves"]["epoch"]
    courses = {name: dict(zip(epochs, values, strict=True)) for name, values in run["curves"].items()}
    courses |= {
        name: {int(epoch): value for epoch, value in values.items()}
        for name, values in run["scores_at_some_epochs"].items()
    }
    return {
        name: fmean(value for epoch, value in course.items() if epoch > 0.8 * epochs[-1])
        for name, course in courses.items()
        if name != "epoch"
    }


def draw_curves(results: dict[str, Any], target: Path) -> None:
    """A panel a score: each run thin, the mean of a variant thick, what real images reach dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(2, 3, sharex=True).flat, PANELS.items(), strict=True):
        for variant in variants_of(results):
            curves = [run["curves"] for run in results["runs"] if run["variant"] == variant]
            for curve in curves:
                axes.plot(curve["epoch"], curve[name], color=COLORS[variant], linewidth=0.6, alpha=0.4)
            means = [sum(column) / len(column) for column in zip(*(curve[name] for curve in curves), strict=True)]
            axes.plot(curves[0]["epoch"], means, color=COLORS[variant], linewidth=1.8, label=variant)
        axes.axhline(results["real"][name], color="0.4", linestyle="--", linewidth=1, label="real images")
        axes.set(ylabel=label)
        axes.grid(alpha=0.25)
    for axes in figure.axes[-3:]:
        axes.set(xlabel="epoch")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(f"{results['data']['name']}: samples of fixed latents; thin: single runs, thick: their mean")
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=100, format="png")


def draw_survival(results: dict[str, Any], target: Path) -> None:
    """The share of runs that have not collapsed, over epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    last = results["settings"]["epochs"]
    for number, variant in enumerate(variants_of(results)):
        collapses = [Collapse(**run["collapse"]) for run in results["runs"] if run["variant"] == variant]
        epochs = sorted({0, last, *(run.collapsed_at for run in collapses if run.collapsed_at is not None)})
        # Lines that would lie on one another are set apart a little.
        shares = [surviving_share(collapses, epoch) - 0.012 * number for epoch in epochs]
        learnt = sum(run.learnt_at is not None for run in collapses)
        label = f"{variant} ({learnt} of {len(collapses)} runs learnt)"
        axes.step(epochs, shares, where="post", color=COLORS[variant], linewidth=1.8, label=label)
    for epoch in PAPER_EPOCHS:
        axes.axvline(epoch, color="0.8", linewidth=0.8, zorder=0)
    axes.set(xlabel="epoch", ylabel="share of runs not collapsed", ylim=(-0.08, 1.05), xlim=(0, last))
    axes.set_title(results["data"]["name"])
    axes.legend(frameon=False, loc="lower left")
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
