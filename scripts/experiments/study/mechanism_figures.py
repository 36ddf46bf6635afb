"""Figures of `mechanism`: learnt fields, and what one layer does beside where a pixel's place can be read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geopos_diffusers.files import atomic_path

from ..results import Run, mean_score, select
from ..statistics import Estimate
from .ablations import ALONE, DROPPED
from .learnt_fields import LearntField
from .mechanism_results import BASE, ONE_LAYER, POSITION, first_words

LAYERS, FILTERS = 6, 8  # shown


def draw_fields(fields: Mapping[str, LearntField], target: Path) -> None:
    """Write a PNG: a row for each of the layers with the largest relative energy, with the filters of largest RMS.

    All of a row have one scale; blue is below 0, red above.
    """
    from matplotlib.figure import Figure

    chosen = sorted(fields, key=lambda name: fields[name].relative(), reverse=True)[:LAYERS]
    figure = Figure(figsize=(FILTERS, 1.25 * len(chosen)), layout="constrained")
    for strip, name in zip(figure.subfigures(len(chosen), squeeze=False)[:, 0], chosen, strict=True):
        values = fields[name].values()
        order = values.square().mean((1, 2)).argsort(descending=True)[:FILTERS]
        reach = values[order].abs().max().item()
        title = f"{name}: RMS {fields[name].relative():.2f} of the output's, scale ±{reach:.2g}"
        strip.suptitle(title, fontsize=8, x=0.01, horizontalalignment="left")
        panels = strip.subplots(1, FILTERS, squeeze=False)[0]
        for panel in panels:
            panel.axis("off")
        for panel, index in zip(panels, order, strict=False):  # a layer may have fewer filters
            panel.imshow(values[index].numpy(), cmap="RdBu_r", vmin=-reach, vmax=reach, interpolation="nearest")
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def draw_layers(records: Sequence[Run], target: Path) -> None:
    """Write a PNG of one task's records: bars of single layers, and R^2 of the place by block."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    bars, *probes = figure.subplot_mosaic([["bars", "x"], ["bars", "y"]]).values()
    draw_bars(bars, select(records, variant=ONE_LAYER))
    for axes, axis in zip(probes, "xy", strict=True):
        draw_places(axes, records, axis)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def draw_bars(axes: Any, runs: Sequence[Run]) -> None:
    layers = first_words(runs, f" {DROPPED}")
    for offset, part, label in ((-0.2, DROPPED, "dropped, minus all layers"), (0.2, ALONE, "alone, minus the base")):
        found = [mean_score(runs, f"{name} {part}") for name in layers]
        places = [index + offset for index in range(len(layers))]
        axes.barh(places, [one.value for one in found], 0.4, xerr=error_bars(found), label=label)
    axes.set_yticks(range(len(layers)), layers, fontsize=7)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("held-out loss, difference of ratios to the base")
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


def draw_places(axes: Any, records: Sequence[Run], axis: str) -> None:
    for variant, style, label in ((BASE, "--", "base"), (POSITION, "-", "with geometry")):
        runs = select(records, variant=variant)
        sizes = dict.fromkeys(name.split(" ", 1)[1] for name in first_words(runs, f" px {axis}"))
        for number, size in enumerate(sizes):
            blocks = first_words(runs, f" {size} px {axis}")
            found = [mean_score(runs, f"{block} {size} px {axis}") for block in blocks]
            axes.errorbar(
                blocks, [one.value for one in found], error_bars(found), linestyle=style, marker="o",
                color=f"C{number}", label=f"{label}, {size} px", capsize=2,
            )  # fmt: skip
    axes.tick_params(axis="x", labelrotation=20, labelsize=7)
    axes.set_ylabel(f"$R^2$ of {axis}")
    axes.legend(frameon=False, fontsize=7)


def error_bars(estimates: Sequence[Estimate]) -> list[list[float]] | None:
    """Distances of the intervals' ends from the values; None of a single seed."""
    if any(one.low is None for one in estimates):
        return None
    return [[one.value - one.low for one in estimates], [one.high - one.value for one in estimates]]
