"""Claim C5: parameters and time of a training step."""

from typing import Any

from geopos_diffusers.metrics.bootstrap import Interval

from ..page import ClaimRow, Paragraph, Section, Table, format_interval
from ..results import KIND_NAMES

NAMES = KIND_NAMES | {"coord": "CoordConv, computed as GeoConv is", "coord-concat": "CoordConv by concatenation"}
LIMIT = 1.03  # of a plain convolution's time


def build_section(results: dict[str, Any]) -> Section:
    section = Section("Parameters and time (C5)", results["command"], results["date"], results["cpu_seconds"])
    section.claims = claim_rows(results)
    rows = []
    for network in results["networks"]:
        label = f"{network['name']}: {network['widths']}, {network['size']} px, batches of {network['batch']}"
        plain = network["variants"]["conv"]["parameters"]
        for variant, name in NAMES.items():
            values = network["variants"][variant]
            more = values["parameters"] - plain
            interval = Interval(values["ratio"], values["low"], values["high"])
            rows.append(
                (label, name, f"{values['parameters']:,}", f"+{more:,}", f"{1e3 * values['seconds']:.2f} ms",
                 format_interval(interval, 3))
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


def claim_rows(results: dict[str, Any]) -> list[ClaimRow]:
    """The count holds or not; the time is judged in the network where GeoConv's share of the time is largest."""
    networks = results["networks"]
    counts = []
    for network in networks:
        parameters = {name: values["parameters"] for name, values in network["variants"].items()}
        counts.append(parameters["coord"] - parameters["geo"] == network["kernel_taps"])
    rows = [
        ClaimRow(
            "C5",
            "(n-1) * l fewer parameters per filter than CoordConv",
            "the taps of the kernel, in 2-D",
            "as many fewer" if all(counts) else "another number",
            1,
            f"{len(networks)} networks, counted",
            "reproduced" if all(counts) else "not reproduced",
        )
    ]
    for network in networks:
        geo, coord = (network["variants"][name] for name in ("geo", "coord-concat"))
        cheaper, cheap = geo["high"] < coord["low"], geo["high"] <= LIMIT
        rows.append(
            ClaimRow(
                "C5",
                "cheaper to run than CoordConv (and at most 1.03 of a convolution, this project's own aim)",
                "stated, no figure in the digest",
                f"GeoConv {format_interval(Interval(geo['ratio'], geo['low'], geo['high']))}, CoordConv "
                f"{format_interval(Interval(coord['ratio'], coord['low'], coord['high']))} of a convolution's step",
                1,
                f"{network['name']}, {network['widths']}",
                "reproduced" if cheaper and cheap else "in part" if cheaper else "not reproduced",
            )
        )
    return rows
