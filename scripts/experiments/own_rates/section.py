"""Comparisons in which each variant trained at its own best learning rate: what was chosen, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geopos_diffusers.errors import DataError
from geopos_diffusers.files import atomic_path

from ..center_of_mass.section import PAPER, change
from ..page import ClaimRow, Headline, Paragraph, Picture, Place, Section, Table, format_interval
from ..positional_bias.section import claim_row, learnt
from ..results import Run, by_variant, paired, select
from ..statistics import Estimate, difference_estimate, mean_estimate, ratio_estimate
from ..vae.claims import SMALLER_LOSS, change_text, loss_row
from ..verdict import Effect

TITLES = {
    "center_of_mass": "Centre of mass at own rates, {steps} steps (C1)",
    "positional_bias": "Positional bias at own rates, {steps} steps (C2)",
    "depth": "Depth at own rates, {steps} steps (C6)",
    "vae": "VAE at own rates, {steps} steps (C4)",
    "diffusion": "Diffusion from random weights, {steps} steps (C6, N2)",
}
OTHERS = ("convolution", "convolution, matched", "CoordConv")  # that all variants are compared with, where they are
PLAIN = ("convolution", "CoordConv")  # that the claims speak of
SHIFTED = {"GeoConv": "", "GeoConv, multilinear": ", multilinear"}  # the default channel in both bases, in a headline


@dataclass(frozen=True)
class Measure:
    """A score of test images.

    value(run): the number. data: name of the training data; None for all. relative: whether variants are compared by
    ratios, for positive scores, or by differences. learnt_only: leave out runs that did not learn their training data.
    """

    label: str
    value: Callable[[Run], float]
    data: str | None = None
    relative: bool = True
    learnt_only: bool = False


def _score(label: str, name: str, data: str | None = None, scale: float = 1.0, relative: bool = True) -> Measure:
    return Measure(label, lambda run: scale * run["scores"][name], data, relative)


MEASURES = {
    "center_of_mass": (
        _score("loss x 1000, points everywhere", "all/everywhere", "all/everywhere", 1000),
        _score("loss x 1000, seen region", "all/three_quarters", "all/three_quarters", 1000),
        _score("loss x 1000, region never shown", "all/fourth_quarter", "all/three_quarters", 1000),
    ),
    "positional_bias": (
        _score("accuracy, same places", "tied", "tied", relative=False),
        _score("accuracy, swapped places", "swapped", "tied", relative=False),
        _score("accuracy, outside the grid", "outside", "tied", relative=False),
        Measure("bias", lambda run: run["scores"]["tied"] - run["scores"]["swapped"], "tied", False, learnt_only=True),
    ),
    "depth": (_score("AbsRel, hands", "abs_rel", "hands"), _score("AbsRel, heads", "abs_rel", "heads")),
    "vae": (_score("test loss", "test"),),
    "diffusion": (
        _score("test loss x 100", "test", scale=100),
        Measure("well formed", lambda run: run["sample_scores"]["well_formed"], relative=False),
        Measure("hand found", lambda run: run["sample_scores"]["found"], relative=False),
        Measure("KID", lambda run: run["sample_scores"]["kid"], relative=False),
        Measure("Vendi score", lambda run: run["sample_scores"]["vendi"]),
    ),
}


def values_by_seed(results: dict[str, Any], measure: Measure, variant: str) -> dict[int, float]:
    """The measure of a variant's runs, by seed; empty if there are none.

    Raises:
        DataError: two of the runs have the same seed, so they differ in something else.
    """
    chosen = {"head": results["head"]} if "head" in results else {}
    chosen |= {"data": measure.data} if measure.data is not None else {}
    runs = select(results["runs"], variant=variant, **chosen)
    runs = [run for run in runs if len(run["widths"]) == len(results["settings"]["widths"])]
    if len({run["seed"] for run in runs}) < len(runs):
        raise DataError(f"runs of {variant} on {measure.label} share seeds; they must differ in the seed alone")
    return {run["seed"]: measure.value(run) for run in (learnt(runs) if measure.learnt_only else runs)}


def compare(results: dict[str, Any], measure: Measure, variant: str, other: str) -> Estimate:
    """`variant` against `other` over the seeds that both have; `count` is the number of these seeds.

    Returns:
        The ratio for a relative measure, else the difference.
    """
    first, second = (values_by_seed(results, measure, name) for name in (variant, other))
    estimate = ratio_estimate if measure.relative else difference_estimate
    return estimate(*paired(first, second))


def variant_names(results: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(run["variant"] for run in results["runs"]))


def opponents(results: dict[str, Any]) -> list[str]:
    return [name for name in OTHERS if name in variant_names(results)]


def score_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for each measure and variant: its mean, and it against each of the opponents."""
    others = opponents(results)
    rates = {(sweep["variant"], sweep["data"]): sweep["learning_rate"] for sweep in results["rates"]}
    rows = []
    for measure in MEASURES[results["task"]]:
        for name in variant_names(results):
            values = list(values_by_seed(results, measure, name).values())
            if not values:
                continue
            runs = select(results["runs"], variant=name)
            rate = rates[name, measure.data or runs[0]["data"]]
            against = [
                "" if name == other else format_interval(compare(results, measure, name, other)) for other in others
            ]
            counts = (f"{runs[0]['parameters']:,}", str(len(values)), f"{rate:g}")
            rows.append((measure.label, name, *counts, format_interval(mean_estimate(values)), *against))
    return rows


def rate_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for each sweep: the chosen rate, and the validation loss at all that were tried."""
    return [
        (
            sweep["data"],
            sweep["variant"],
            f"{sweep['learning_rate']:g}{'' if sweep['bracketed'] else ' (not bracketed)'}",
            ", ".join(
                f"{rate}: {'diverged' if loss is None else f'{loss:.4g}'}" for rate, loss in sweep["losses"].items()
            ),
        )
        for sweep in results["rates"]
    ]


def basis_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for each measure and GeoConv in the multilinear basis: it against the same in the basis of taps."""
    names = variant_names(results)
    pairs = [(name, name.replace(", multilinear", "")) for name in names if ", multilinear" in name]
    return [
        (measure.label, name, other, format_interval(found), str(found.count))
        for measure in MEASURES[results["task"]]
        for name, other in pairs
        if (found := compare(results, measure, name, other)).count
    ]


def change_rows(results: dict[str, Any], common: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for each measure and pair of variants that `common`, the results at one rate for all, has too."""
    rows, others = [], opponents(results)
    pairs = [
        (name, other)
        for name in variant_names(results)
        for other in (others[: others.index(name)] if name in others else others)
    ]
    for measure in MEASURES[results["task"]]:
        for name, other in pairs:
            before, after = (compare(found, measure, name, other) for found in (common, results))
            if before.count and after.count:
                cells = [f"{format_interval(found)}, n = {found.count}" for found in (before, after)]
                rows.append((measure.label, name, other, *cells))
    return rows


def claim_rows(results: dict[str, Any]) -> list[ClaimRow]:
    """The paper's claims on an experiment, for the GeoConvs at their own rates."""
    if results["task"] == "positional_bias":
        variants = by_variant(results["runs"], variant_names(results))
        places = {"GeoConv": "own rates", "GeoConv, multilinear": "own rates, multilinear"}
        return [claim_row(results, variants, name, place, place) for name, place in places.items() if name in variants]
    build = {"center_of_mass": center_of_mass_row, "depth": depth_row, "vae": vae_row}[results["task"]]
    return [
        build(results, measure, name, other, found)
        for measure in MEASURES[results["task"]]
        for name in variant_names(results)
        if name.startswith("GeoConv") and (results["task"] == "center_of_mass" or name in SHIFTED)
        for other in PLAIN
        if (found := compare(results, measure, name, other)).count
    ]


def setting(results: dict[str, Any], place: str) -> str:
    return f"own rates; {place}; {results['settings']['steps']} steps"


def center_of_mass_row(results: dict[str, Any], measure: Measure, name: str, other: str, found: Estimate) -> ClaimRow:
    """Claim C1. GeoConv without shift, which validation chose at one rate for all, is the headline."""
    label, figures, headline = measure.label.partition(", ")[2], format_interval(change(found), 0, percent=True), None
    if name == "GeoConv, no shift":
        headline = Headline(f"centre of mass: lower loss than {other}; by {name}", f"own rates, {label}", figures)
    claim, paper = f"centre of mass: loss of {name} against {other}", f"-{PAPER[other]:.0%}"
    effect = Effect(found, "less", 1, 1 - PAPER[other])
    return ClaimRow("C1", claim, paper, figures, found.count, setting(results, label), effect, headline)


def depth_row(results: dict[str, Any], measure: Measure, name: str, other: str, found: Estimate) -> ClaimRow:
    """Claim C6."""
    place, figures = f"own rates, {measure.data}{SHIFTED[name]}", format_interval(found)
    headline = Headline(f"depth: smaller error (AbsRel) than {other}", place, figures)
    claim, paper = f"depth: AbsRel of {name} by that of {other}", "mentioned, no figure"
    where = setting(results, measure.data)
    return ClaimRow("C6", claim, paper, figures, found.count, where, Effect(found, "less", 1), headline)


def vae_row(results: dict[str, Any], measure: Measure, name: str, other: str, found: Estimate) -> ClaimRow:
    """Claim C4, as where all have one rate; the headline there is of the convolution alone."""
    data, headline = results["data"]["name"], None
    if other == "convolution":
        headline = Headline(SMALLER_LOSS, f"own rates, {data}{SHIFTED[name]}", change_text(found))
    return loss_row(f"VAE: test loss of {name} against {other}", found, setting(results, data), headline)


def build_section(
    results: dict[str, Any],
    place: Place,
    common: dict[str, Any] | None = None,
    claims: list[ClaimRow] | None = None,
) -> Section:
    """What each variant's own rate gives.

    Args:
        common: the results of the same experiment at one rate for all, to show beside.
        claims: of an experiment that has its own; None for those of `claim_rows`.
    """
    settings, figure = results["settings"], place.figure("_sweeps.png")
    title = TITLES[results["task"]].format(steps=settings["steps"])
    claims = claim_rows(results) if claims is None else claims
    section = Section(title, results["command"], results["date"], results["cpu_seconds"], claims)
    draw_sweeps(results, figure)
    header = ("measure", "variant", "parameters", "seeds", "learning rate", "mean")
    section.blocks = [
        Paragraph(
            f"The same networks and data, {settings['steps']} steps of {settings['batch_size']}, and for each variant "
            "the learning rate with the lowest validation loss of a sweep: the mean over seeds that the comparison "
            f"does not use ({settings['sweep_seeds']} of them), on a grid that grew until the best "
            "rate had a worse one on both sides. Test images decided nothing. Intervals are 95% intervals of Student's "
            "t over seeds; ratios are of geometric means, paired by seed, by t on the logarithms. Losses are compared "
            "by ratios, accuracies by differences. **Multilinear** is GeoConv with the coefficients of 1, x, y and xy "
            "as weights, the basis of patched models; the others have a kernel over the geometry channel. **Matched** "
            "has the last layer widened to CoordConv's number of parameters."
        ),
        Table((*header, *(f"against {other}" for other in opponents(results))), score_rows(results)),
    ]
    if bases := basis_rows(results):
        header = ("measure", "variant", "against", "ratio or difference", "seeds")
        section.blocks += [Paragraph("**What the basis changes:**"), Table(header, bases)]
    if common is not None and (changes := change_rows(results, common)):
        steps = [f"{found['settings']['steps']} steps" for found in (common, results)]
        columns = ("measure", "variant", "against", f"at one rate, {steps[0]}", f"at own rates, {steps[1]}")
        section.blocks += [Paragraph("**What the rates and the budget change:**"), Table(columns, changes)]
    section.blocks += [
        Table(("data", "variant", "chosen rate", "validation loss by learning rate"), rate_rows(results)),
        Picture(figure.name, "Validation loss by learning rate; a ring marks the chosen one"),
    ]
    return section


def draw_sweeps(results: dict[str, Any], target: Path) -> None:
    """One panel for each kind of data, one line a variant."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(sweep["data"] for sweep in results["rates"]))
    figure = Figure(figsize=(5 * len(kinds) + 3, 3.8), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axes, data in zip(panels, kinds, strict=True):
        for number, sweep in enumerate(sweep for sweep in results["rates"] if sweep["data"] == data):
            losses = {float(rate): loss for rate, loss in sweep["losses"].items() if loss is not None}
            axes.plot([*losses], [*losses.values()], marker=".", color=f"C{number}", label=sweep["variant"])
            best = sweep["learning_rate"]
            if best in losses:
                axes.plot(best, losses[best], "o", color=f"C{number}", markersize=9, fillstyle="none")
        swept = [sweep["losses"] for sweep in results["rates"] if sweep["data"] == data]
        rates = sorted({float(rate) for losses in swept for rate in losses})
        positive = all(loss > 0 for losses in swept for loss in losses.values() if loss is not None)
        axes.set(title=data, xscale="log", yscale="log" if positive else "linear", xlabel="peak learning rate")
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.set_xticks([], minor=True)
    panels[0].set_ylabel("validation loss")
    panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=100, format="png")
