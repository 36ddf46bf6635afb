"""Claim C5: parameters and time of a training step."""

from typing import Any

from geopos_diffusers.metrics.bootstrap import Interval

from ..page import ClaimRow, Headline, Paragraph, Place, Section, Table, format_interval
from ..results import Run, select
from ..verdict import STEP_AIM, aim_verdict, cost_verdict, count_verdict

COORD, GEO, CONCATENATED = "CoordConv, computed as GeoConv is", "GeoConv", "CoordConv by concatenation"


def build_section(results: dict[str, Any], place: Place | None = None) -> Section:
    section = Section("Parameters and time (C5)", results["command"], results["date"], results["cpu_seconds"])
    section.claims = claim_rows(results)
    rows = []
    for network in results["networks"]:
        label = f"{network['name']}: {network['widths']}, {network['size']} px, batches of {network['batch']}"
        runs = of_network(results, network)
        for name, run in runs.items():
            more = run["parameters"] - runs["convolution"]["parameters"]
            rows.append(
                (label, name, f"{run['parameters']:,}", f"+{more:,}", f"{1e3 * run['seconds']:.2f} ms",
                 format_interval(ratio(run), 3))
            )  # fmt: skip
    header = ("network", "variant", "parameters", "more than plain", "training step", "ratio to plain")
    section.blocks = [
        Paragraph(
            "Processor time of a training step (forward, backward, optimizer); variants take turns within rounds, and "
            "ratios are medians over rounds of the ratio within a round. In small networks a step is mostly Python and "
            "small calls, of which every layer with coordinates has some ten more, at 5 to 10 us each beside a "
            "convolution on this processor. Time in networks of the size of Stable Diffusion is in "
            "`docs/results/overhead.md`. A GeoConv filter of kernel k x k has k^2 weights "
            "more than a plain one, a CoordConv filter 2 k^2: counted here and tested."
        ),
        Table(header, rows),
    ]
    return section


def of_network(results: dict[str, Any], network: dict[str, Any]) -> dict[str, Run]:
    """What was measured in a network, by variant."""
    return {run["variant"]: run for run in select(results["runs"], network=network["name"])}


def ratio(run: Run) -> Interval:
    """Of a step's time to the plain network's."""
    return Interval(run["ratio"], run["low"], run["high"])


def claim_rows(results: dict[str, Any]) -> list[ClaimRow]:
    """The count, GeoConv's time beside that of CoordConv by concatenation in each network, and this project's aim."""
    networks, rounds = results["networks"], results["settings"]["rounds"]
    found = [of_network(results, network) for network in networks]
    fewer = [runs[COORD]["parameters"] - runs[GEO]["parameters"] for runs in found]
    counts = all(less == network["kernel_taps"] for less, network in zip(fewer, networks, strict=True))
    claim, short = "(n-1) * l fewer parameters per filter than CoordConv", "as claimed" if counts else "not so"
    rows = [
        ClaimRow(
            "C5", claim, "the taps of the kernel, in 2-D",
            "as many fewer" if counts else "another number", len(networks), f"{len(networks)} networks, counted",
            count_verdict(counts), Headline(claim, "counted", short, "networks"),
        )
    ]  # fmt: skip
    for network, runs in zip(networks, found, strict=True):
        geo, coord = ratio(runs[GEO]), ratio(runs[CONCATENATED])
        rows.append(
            ClaimRow(
                "C5", "cheaper to run than CoordConv", "stated, no figure in the digest",
                f"GeoConv {format_interval(geo)}, CoordConv {format_interval(coord)} of a convolution's step", rounds,
                f"{network['name']}, {network['widths']}; one of {len(networks)} comparisons",
                cost_verdict(geo, coord),
                Headline(
                    "cheaper to run than CoordConv (step, by a convolution's)", network["name"],
                    f"{geo.value:.2f} against {coord.value:.2f}", "rounds",
                ),
            )
        )  # fmt: skip
    ratios = [ratio(runs[GEO]) for runs in found]
    values = [interval.value for interval in ratios]
    rows.append(
        ClaimRow(
            "aim", f"this project's own aim: at most {STEP_AIM} of a convolution's step", "no claim of the paper",
            f"{min(values):.2f} to {max(values):.2f} of a convolution's step", rounds,
            f"{len(networks)} networks", aim_verdict(ratios),
            Headline(
                f"this project's own aim: at most {STEP_AIM} of a convolution's step", f"{len(networks)} networks",
                f"{min(values):.2f} to {max(values):.2f}", "rounds",
            ),
        )
    )  # fmt: skip
    return rows
