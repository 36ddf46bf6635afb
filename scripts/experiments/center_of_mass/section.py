"""Claim C1: the loss on the centre of mass, beside the paper's figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geopos_diffusers.files import atomic_path
from geopos_diffusers.metrics.bootstrap import Interval

from ..page import ClaimRow, Paragraph, Picture, Place, Section, Table, format_interval
from ..results import KIND_NAMES, Run, geometry, mean_interval, ratio_interval, scores, select

EVERYWHERE, SEEN, UNSEEN = "all/everywhere", "all/three_quarters", "all/fourth_quarter"
# What the paper reports: GeoConv's loss is lower than the other's by this share.
PAPER = {"conv": 0.46, "coord": 0.57}
NAMES = {kind: KIND_NAMES[kind] for kind in PAPER}
# Where a network learnt, and where it is tested.
TESTS = {
    "points everywhere": (EVERYWHERE, EVERYWHERE),
    "seen region": (SEEN, SEEN),
    "region never shown": (SEEN, UNSEEN),
}


def verdict(ratio: Interval, paper_reduction: float) -> str:
    """reproduced: lower, and the paper's reduction is not above the interval's; in part: lower; else not reproduced."""
    if ratio.high is None or ratio.high >= 1:
        return "not reproduced"
    return "reproduced" if ratio.low <= 1 - paper_reduction else "in part"


def describe(options: dict[str, Any]) -> str:
    """ "product, shift 0.25"."""
    shift = options["shift_range"]
    return f"{options['encoding']}, " + (f"shift {shift:g}" if shift else "no shift")


def compared(results: dict[str, Any], data: str) -> dict[str, list[Run]]:
    """The runs of the comparison on `data`, by name of the variant."""
    plain, chosen = results["settings"]["widths"], results["chosen_on_validation"][data]
    runs = select(results["runs"], data=data, head=results["head"])
    wide = [run for run in runs if run["widths"] != plain and len(run["widths"]) == len(plain)]
    narrow = select(runs, widths=plain)
    variants = {
        "convolution": select(narrow, kind="conv"),
        "convolution, matched": select(wide, kind="conv"),
        "CoordConv": select(narrow, kind="coord"),
        f"GeoConv, chosen ({describe(chosen)})": select(narrow, **geometry(**chosen)),
        "GeoConv, chosen, matched": select(wide, **geometry(**chosen)),
    }
    if (default := geometry()) != geometry(**chosen):
        variants[f"GeoConv, default ({describe(default)})"] = select(narrow, **default)
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
            "Encoding and shift were chosen by the validation loss of the map's runs, the losses below are of other "
            "images. **Matched** has the last layer widened to CoordConv's number of parameters. The digest of the "
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
        variants = compared(results, data)
        for name, runs in variants.items():
            if not name.startswith("GeoConv") or (data != EVERYWHERE and not name.startswith("GeoConv, chosen (")):
                continue
            for kind, reduction in PAPER.items():
                other = NAMES[kind]
                if "matched" in name and f"{other}, matched" in variants:
                    other = f"{other}, matched"
                ratio = ratio_interval(runs, variants[other], test)
                ends = (ratio.value, ratio.low, ratio.high)
                change = Interval(*(None if value is None else value - 1 for value in ends))
                rows.append(
                    ClaimRow(
                        "C1",
                        f"centre of mass: loss of GeoConv against {other}",
                        f"-{reduction:.0%}",
                        format_interval(change, 0, percent=True),
                        len(runs),
                        f"{label}; {name}; {results['settings']['steps']} steps",
                        verdict(ratio, reduction),
                    )
                )
    return rows


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
            mean = mean_interval(runs, test)
            cells.append(format_interval(Interval(*(1000 * value for value in (mean.value, mean.low, mean.high)))))
            cells += [format_interval(ratio_interval(runs, variants[other], test)) for other in NAMES.values()]
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


def variant_names(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """What `select` needs by name, for all kinds, encodings and shifts that occur with otherwise default channels."""
    found = {"convolution": {"kind": "conv"}, "CoordConv": {"kind": "coord"}}
    pairs = {(run["encoding"], run["shift_range"]) for run in runs if run["kind"] == "geo"}
    for encoding, shift in sorted(pairs):
        options = geometry(encoding=encoding, shift_range=shift)
        if select(runs, **options):
            found[describe(options)] = options
    return found


def map_table(results: dict[str, Any]) -> Table:
    header = ("network", "variant", "seeds", "everywhere", "three quarters", "fourth quarter")
    rows = []
    for network, (head, widths) in networks(results).items():
        runs = select(results["runs"], head=head, widths=widths)
        for name, options in variant_names(runs).items():
            chosen = select(runs, **options)
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
        for name, options in variant_names(runs).items():
            found = select(runs, **options)
            cells = [format_mean(found, f"{tested}/everywhere") for tested in densities]
            if found and select(plain, data="sparse/everywhere", **options):
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
        for row, runs in enumerate(variants.values()):
            values = list(scores(runs, test).values())
            color = {"conv": "C7", "coord": "C1", "geo": "C0"}[runs[0]["kind"]]
            axes.plot(values, [row] * len(values), "o", color=color, alpha=0.5)
            axes.plot([sum(values) / len(values)] * 2, [row - 0.3, row + 0.3], color="black")
        axes.set(title=label, xlabel="test loss (mean squared error)")
        axes.set_xlim(left=0, right=1.05 * axes.get_xlim()[1])
        axes.set_yticks(range(len(variants)), [name.replace(" (", "\n(") for name in variants], fontsize=8)
        axes.invert_yaxis()
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
