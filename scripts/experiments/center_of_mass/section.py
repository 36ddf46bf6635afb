"""Claim C1: the loss on the centre of mass, beside the paper's figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geopos_diffusers.files import atomic_path
from geopos_diffusers.metrics.bootstrap import Interval
from geopos_diffusers.patching.config import GeoPosConfig

from ..baselines.sensitivity import ENCODINGS
from ..baselines.trial import variant_name
from ..page import ClaimRow, Headline, Paragraph, Picture, Place, Section, Table, format_interval
from ..results import Run, mean_score, score_ratio, scores, select
from ..verdict import Effect

EVERYWHERE, SEEN, UNSEEN = "all/everywhere", "all/three_quarters", "all/fourth_quarter"
# What the paper reports: GeoConv's loss is lower than the other's by this share.
PAPER = {"convolution": 0.46, "CoordConv": 0.57}
# Where a network learnt, and where it is tested.
TESTS = {
    "points everywhere": (EVERYWHERE, EVERYWHERE),
    "seen region": (SEEN, SEEN),
    "region never shown": (SEEN, UNSEEN),
}


def compared(results: dict[str, Any], data: str) -> dict[str, list[Run]]:
    """The runs of the comparison on `data`, by variant: plain ones, the GeoConv chosen on validation, the default."""
    chosen = results["chosen_on_validation"][data]
    names = ("convolution", "convolution, matched", "CoordConv", chosen, f"{chosen}, matched", "GeoConv")
    runs = select(results["runs"], data=data, head=results["head"])
    deep = [run for run in runs if len(run["widths"]) == len(results["settings"]["widths"])]
    variants = {name: select(deep, variant=name) for name in names}
    return {name: found for name, found in variants.items() if found}


def build_section(results: dict[str, Any], place: Place) -> Section:
    settings, figure = results["settings"], place.figure(".png")
    title = f"Centre of mass, {settings['steps']} steps (C1)"
    section = Section(title, results["command"], results["date"], results["cpu_seconds"], claim_rows(results))
    draw_losses(results, figure)
    section.blocks = [
        Paragraph(
            f"Images of {settings['size']} x {settings['size']} pixels; each has a square of its own (5 pixels to the "
            "whole image) in which every pixel is a point with a probability of its own, 0.01 to 0.8, drawn "
            "log-uniformly. The target is the mean position of the points, x and y in [-1, 1]; the loss is the mean "
            f"squared error. Strided 3x3 convolutions of {settings['widths']} channels and an {results['head']} head, "
            f"{settings['steps']} steps of {settings['batch_size']}, the same budget and learning rate for all kinds. "
            "Encoding and shift were chosen by the validation loss of the map's runs: "
            f"{results['chosen_on_validation'][EVERYWHERE]} for points everywhere, "
            f"{results['chosen_on_validation'][SEEN]} for the seen region. **GeoConv** alone has the "
            "defaults, the product encoding and shift 0.25. The losses below are of other images. **Matched** has the "
            "last layer widened to CoordConv's number of parameters. The digest of the "
            "paper at hand does not describe its data or network: all of this is our reading."
        ),
        *(block for data in (EVERYWHERE, SEEN) for block in comparison_blocks(results, data)),
        Picture(figure.name, "Test losses, a dot for each seed and a bar at the mean"),
        Paragraph(
            "**The map**: networks, encodings, shifts and training regions, the mean test loss over the seeds named "
            "(trained everywhere / on three quarters). `three quarters` and `fourth quarter` are the seen and the "
            "unseen region of networks that never saw a point in the lower right quarter."
        ),
        map_table(results),
        Paragraph("**Densities**: trained on one range of densities (rows), tested on sparse, dense and all."),
        density_table(results),
    ]
    return section


def claim_rows(results: dict[str, Any]) -> list[ClaimRow]:
    """The chosen GeoConv in every test; with points everywhere also the default one and equal parameters."""
    rows = []
    for label, (data, test) in TESTS.items():
        variants, chosen = compared(results, data), results["chosen_on_validation"][data]
        for name, runs in variants.items():
            if not name.startswith("GeoConv") or (data != EVERYWHERE and name != chosen):
                continue
            for kind, reduction in PAPER.items():
                matched = name.endswith("matched") and f"{kind}, matched" in variants
                other = f"{kind}, matched" if matched else kind
                ratio = score_ratio(runs, variants[other], test)
                figures = format_interval(change(ratio), 0, percent=True)
                headline = None
                if name == chosen:
                    headline = Headline(f"centre of mass: lower loss than {kind}; by {chosen}", label, figures)
                rows.append(
                    ClaimRow(
                        "C1",
                        f"centre of mass: loss of GeoConv against {other}",
                        f"-{reduction:.0%}",
                        figures,
                        ratio.count,
                        f"{label}; {name}{', chosen' if name == chosen else ''}; {results['settings']['steps']} steps",
                        Effect(ratio, "less", 1, 1 - reduction),
                        headline,
                    )
                )
    return rows


def change(ratio: Interval) -> Interval:
    """A ratio as a change: 0.8 is -0.2."""
    return Interval(*(None if end is None else end - 1 for end in (ratio.value, ratio.low, ratio.high)))


def scaled(interval: Interval, factor: float) -> Interval:
    return Interval(*(None if end is None else factor * end for end in (interval.value, interval.low, interval.high)))


def comparison_blocks(results: dict[str, Any], data: str) -> list[Paragraph | Table]:
    tests = [(label, test) for label, (trained, test) in TESTS.items() if trained == data]
    variants = compared(results, data)
    header = ["trained on " + ("points everywhere" if data == EVERYWHERE else "three quarters"), "parameters", "seeds"]
    for label, _ in tests:
        header += [f"loss x 1000, {label}", "ratio to convolution", "ratio to CoordConv"]
    rows = []
    for name, runs in variants.items():
        cells = [name, f"{runs[0]['parameters']:,}", str(len(runs))]
        for _, test in tests:
            cells.append(format_interval(scaled(mean_score(runs, test), 1000)))
            cells += [format_interval(score_ratio(runs, variants[other], test)) for other in PAPER]
        rows.append(cells)
    return [Table(header, rows)]


def networks(results: dict[str, Any]) -> dict[str, tuple[str, Sequence[int]]]:
    """Head and widths of the map's networks by name."""
    settings, head = results["settings"], results["head"]
    deep, shallow = settings["widths"], settings["shallow_widths"]
    return {
        f"{len(deep)} layers, {head}": (head, deep),
        f"{len(shallow)} layers, {head}": (head, shallow),
        f"{len(deep)} layers, flatten": ("flatten", deep),
    }


def variant_names(results: dict[str, Any], runs: Sequence[Run]) -> list[str]:
    """What the map compares: the plain kinds, then encodings and shifts of GeoConv."""
    shifts = sorted({*results["settings"].get("map_shifts", ()), *results["settings"]["sweep_shifts"]})
    geometries = [GeoPosConfig(encoding=name, shift_range=shift) for name in sorted(ENCODINGS) for shift in shifts]
    names = [*PAPER, *(variant_name("geo", geometry) for geometry in geometries)]
    found = {run["variant"] for run in runs}
    return [name for name in names if name in found]


def map_table(results: dict[str, Any]) -> Table:
    header = ("network", "variant", "seeds", "everywhere", "three quarters", "fourth quarter")
    rows = []
    for network, (head, widths) in networks(results).items():
        runs = select(results["runs"], head=head, widths=widths)
        for name in variant_names(results, runs):
            chosen = select(runs, variant=name)
            cells = [format_mean(select(chosen, data=data), test) for data, test in TESTS.values()]
            seeds = [len(select(chosen, data=data)) for data in (EVERYWHERE, SEEN)]
            if any(seeds):
                rows.append((network, name, " / ".join(map(str, seeds)), *cells))
    return Table(header, rows)


def density_table(results: dict[str, Any]) -> Table:
    densities = ("sparse", "dense", "all")
    plain = select(results["runs"], head=results["head"], widths=results["settings"]["widths"])
    rows = []
    for trained in densities:
        runs = select(plain, data=f"{trained}/everywhere")
        for name in variant_names(results, runs):
            found = select(runs, variant=name)
            cells = [format_mean(found, f"{tested}/everywhere") for tested in densities]
            if found and select(plain, data="sparse/everywhere", variant=name):
                rows.append((trained, name, str(len(found)), *cells))
    return Table(("trained on", "variant", "seeds", *densities), rows)


def format_mean(runs: Sequence[Run], test: str) -> str:
    values = scores(runs, test).values()
    return f"{sum(values) / len(values):.4f}" if values else "-"


def draw_losses(results: dict[str, Any], target: Path) -> None:
    """One panel a test, one line of dots a variant."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axes, (label, (data, test)) in zip(figure.subplots(1, 3), TESTS.items(), strict=True):
        variants = compared(results, data)
        for row, (name, runs) in enumerate(variants.items()):
            values = list(scores(runs, test).values())
            color = {"convolution": "C7", "CoordConv": "C1", "GeoConv": "C0"}[name.partition(",")[0]]
            axes.plot(values, [row] * len(values), "o", color=color, alpha=0.5)
            axes.plot([sum(values) / len(values)] * 2, [row - 0.3, row + 0.3], color="black")
        axes.set(title=label, xlabel="test loss (mean squared error)")
        axes.set_xlim(left=0, right=1.05 * axes.get_xlim()[1])
        axes.set_yticks(
            range(len(variants)), [name.replace(", matched", ",\nmatched") for name in variants], fontsize=8
        )
        axes.invert_yaxis()
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
