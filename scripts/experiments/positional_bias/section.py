"""Claim C2: is a class tied to the place where it was seen?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geopos_diffusers.files import atomic_path

from ..page import ClaimRow, Headline, Paragraph, Picture, Place, Section, Table, format_interval
from ..results import Run, by_variant, mean_score, select
from ..statistics import Estimate, mean_estimate, unpaired_difference_estimate
from ..verdict import FREE_OF_BIAS, Bias

TESTS = {
    "tied": "same places",
    "swapped": "swapped places",
    "everywhere": "anywhere in the grid",
    "outside": "outside the grid",
}
DEFAULT, WIDE = "GeoConv", "GeoConv, shift 0.5"
# In the order of the tables. The first and third have the same channels, x and y, without and with a shift.
VARIANTS = ("convolution", "CoordConv", "GeoConv, cartesian", "GeoConv, no shift", DEFAULT, WIDE)
# What is said of each of them in the claims' setting.
JUDGED = {DEFAULT: "product, shift 0.25", WIDE: "product, shift 0.5, added after the sweep's first seed had been seen"}
DEAD_START = (
    "With the maximum over places, a network with coordinates can start where the same corner wins whatever the image, "
    "and then learns nothing: such runs are in the accuracies and not in the bias."
)
NORMALISED = (
    "Without normalisation half of the networks with coordinates learn nothing under this head. So batch normalisation "
    "was tried, and heads that take the mean or the log-mean-exp over places, with three other seeds of each kind: "
    "with the maximum and normalisation all had 98% or more of the validation images right after these steps, whatever "
    "the kind."
)
ADDED = ", but shift 0.5 was added after the sweep's first seed had shown less bias there"
TRIED_BEFORE = (
    "Tried before, on one seed: 32 pixels with a grid up to the border and four layers, then 48 pixels with a margin "
    "of 10, smaller numerals: there the plain convolution learnt the places too (0% and 14% at swapped ones); this "
    "image with an average head: after 600 steps the convolution had 36% right, too little to tell. In all of them "
    "CoordConv went by the place, and GeoConv no less than the convolution."
)
LEARNT = 0.5  # accuracy on validation images, of which training alone decides; chance is 1/9


def normalised(results: dict[str, Any]) -> bool:
    """Whether the networks have batch normalisation; results of before it was an option have no word of it."""
    return results["settings"].get("batch_norm", False)


def compared(results: dict[str, Any], data: str = "tied", head: str | None = None) -> dict[str, list[Run]]:
    """The runs of each variant, as `by_variant` names them."""
    runs = select(results["runs"], data=data, head=head or results["head"])
    return by_variant(runs, VARIANTS)


def learnt(runs: Sequence[Run]) -> list[Run]:
    """The runs that learnt their training data; others say nothing of what they would have tied a class to."""
    return [run for run in runs if run["scores"]["validation"] > LEARNT]


def build_section(results: dict[str, Any], place: Place) -> Section:
    settings, figure = results["settings"], place.figure(".png")
    title = f"Positional bias{', batch normalisation' if normalised(results) else ''} (C2)"
    section = Section(title, results["command"], results["date"], results["cpu_seconds"], claim_rows(results))
    variants = compared(results)
    draw_accuracies(variants, figure)
    section.blocks = [
        Paragraph(
            f"Nine Greek numerals in images of {settings['size']} x {settings['size']} pixels. In training, class k is "
            "anywhere in cell k of a grid of 3 x 3 cells of 8 pixels; fonts, sizes and tilt vary, so the shape alone "
            "tells the class as well. Tests: the same cells; each class in the cell of another; anywhere in the grid; "
            "and in a frame of 6 pixels around it, where training put nothing. Strided 3x3 convolutions of "
            f"{settings['widths']} channels{', each with batch normalisation,' if normalised(results) else ''} and a "
            f"{results['head']} head: the plain convolution cannot tell the cells apart. {settings['steps']} steps of "
            f"{settings['batch_size']}. Chance is 11%. **Bias** is the accuracy at "
            "the same minus that at swapped places, over the runs that **learnt**: those with more than half of the "
            f"validation images (placed as in training) right. {NORMALISED if normalised(results) else DEAD_START} "
            f"Nothing was chosen by the test scores{ADDED if WIDE in judged(variants) else ''}."
        ),
        *([] if normalised(results) else [Paragraph(TRIED_BEFORE)]),
        accuracy_table(variants),
        Picture(
            figure.name,
            "Accuracy with 95% intervals over seeds; accuracies are at most 1, which the intervals do not know",
        ),
        Paragraph(
            "**Training without positional bias** (every class anywhere in the grid), a few seeds: what each kind "
            "learns of the shapes when places say nothing."
        ),
        accuracy_table(compared(results, data="everywhere")),
        Paragraph("**A head that flattens**, which shows places to the plain convolution too, a few seeds:"),
        accuracy_table(compared(results, head="flatten")),
    ]
    return section


def claim_rows(results: dict[str, Any]) -> list[ClaimRow]:
    variants = compared(results)
    place = "batch normalisation" if normalised(results) else "without normalisation"
    return [
        claim_row(results, variants, name, JUDGED[name], place if name == DEFAULT else None)
        for name in judged(variants)
    ]


def judged(variants: dict[str, list[Run]]) -> list[str]:
    """Those of JUDGED that were run with the main comparison's seeds, and not in the sweep alone."""
    return [name for name in JUDGED if len(variants.get(name, [])) == len(variants["CoordConv"])]


def biases(runs: Sequence[Run]) -> list[float]:
    """Accuracy at the same minus at swapped places, of the runs that learnt."""
    return [run["scores"]["tied"] - run["scores"]["swapped"] for run in learnt(runs)]


def bias(runs: Sequence[Run]) -> Estimate:
    return mean_estimate(biases(runs), null=FREE_OF_BIAS)


def claim_row(
    results: dict[str, Any], variants: dict[str, list[Run]], name: str, note: str, place: str | None
) -> ClaimRow:
    """The claim for the variant `name`.

    Args:
        note: what is said of the variant. place: of the figures in the row of all claims; None to leave them out.
    """
    compared_runs = {
        "CoordConv": variants["CoordConv"],
        "GeoConv": variants[name],
        "convolution": variants["convolution"],
    }
    found = {label: bias(runs) for label, runs in compared_runs.items()}
    difference = unpaired_difference_estimate(biases(variants[name]), biases(variants["CoordConv"]))
    claim = "CoordConv ties a class to the place where it was seen, GeoConv does not"
    shown = "bias of " + ", ".join(f"{label} {format_interval(interval)}" for label, interval in found.items())
    return ClaimRow(
        "C2",
        claim,
        "stated, no figure in the digest",
        shown,
        difference.count,
        f"{results['head']} head{', batch normalisation' if normalised(results) else ''}; "
        f"{note}; of {len(variants[name])} runs each, those that learnt",
        Bias(found["CoordConv"], found["GeoConv"], difference),
        Headline(claim, place, shown, "runs that learnt") if place else None,
    )


def accuracy_table(variants: dict[str, list[Run]]) -> Table:
    rows = []
    for name, runs in variants.items():
        cells = [format_interval(mean_score(runs, test), 1, percent=True) for test in TESTS]
        counts = (f"{runs[0]['parameters']:,}", str(len(runs)), str(len(learnt(runs))))
        rows.append((name, *counts, *cells, format_interval(bias(runs))))
    return Table(("variant", "parameters", "seeds", "learnt", *TESTS.values(), "bias"), rows)


def draw_accuracies(variants: dict[str, Sequence[Run]], target: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(variants)
    for number, (name, runs) in enumerate(variants.items()):
        intervals = [mean_score(runs, test) for test in TESTS]
        places = [index - 0.4 + width * (number + 0.5) for index in range(len(TESTS))]
        values = [interval.value for interval in intervals]
        ends = [0.0 if interval.low is None else interval.value - interval.low for interval in intervals]
        axes.bar(places, values, width, yerr=ends, label=name, color=f"C{number}", error_kw={"linewidth": 1})
    axes.axhline(1 / 9, color="black", linestyle=":", linewidth=1, label="chance")
    axes.set(ylabel="accuracy", ylim=(0, 1))
    axes.set_xticks(range(len(TESTS)), TESTS.values())
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
