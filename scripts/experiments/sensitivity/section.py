"""Next check N1: how much the results depend on each option of the geometry channel, as heat maps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geopos_diffusers.files import atomic_path
from geopos_diffusers.patching.config import GeoPosConfig

from ..baselines.trial import variant_name
from ..center_of_mass.section import SEEN, UNSEEN
from ..page import ClaimRow, Headline, Paragraph, Picture, Section, Table
from ..positional_bias.section import learnt, normalised
from ..results import Run, select
from ..verdict import MEASURED

NORMALISED = "; C2's are those with batch normalisation, without which many do not learn"
GEOMETRY = ("encoding", "normalization", "shift_range", "shift_scope", "shift_unit", "border")  # columns of the table
ENCODING_FIGURE, OPTIONS_FIGURE = "paper_sensitivity_encoding.png", "paper_sensitivity_options.png"


@dataclass(frozen=True)
class Measure:
    """A score of the sweep's runs; `smaller` tells whether smaller is better."""

    title: str
    score: Callable[[Run], float]
    runs: list[Run]
    smaller: bool


def measures(points: dict[str, Any], numerals: dict[str, Any]) -> list[Measure]:
    """The sweep's four scores, from the results of the two experiments."""

    def swept(results: dict[str, Any], data: str) -> list[Run]:
        widths = results["settings"]["widths"]
        return select(results["runs"], data=data, head=results["head"], widths=widths, kind="geo")

    seen, tied = swept(points, SEEN), swept(numerals, "tied")
    return [
        Measure("C1 loss x 1000, seen region", lambda run: 1000 * run["scores"][SEEN], seen, True),
        Measure("C1 loss x 1000, region never shown", lambda run: 1000 * run["scores"][UNSEEN], seen, True),
        Measure("C2 accuracy %, same places", lambda run: 100 * run["scores"]["tied"], tied, False),
        Measure("C2 accuracy %, swapped places", lambda run: 100 * run["scores"]["swapped"], tied, False),
    ]


def grid(measure: Measure, rows: tuple[str, Sequence], columns: tuple[str, Sequence]) -> list[list[float | None]]:
    """Mean scores over seeds for every pair of two options' values, all else by default; None where none was run."""

    def cell(row: Any, column: Any) -> float | None:
        runs = select(measure.runs, variant=variant_name("geo", GeoPosConfig(**{rows[0]: row, columns[0]: column})))
        return sum(map(measure.score, runs)) / len(runs) if runs else None

    return [[cell(row, column) for column in columns[1]] for row in rows[1]]


def build_section(points: dict[str, Any], numerals: dict[str, Any], folder: Path) -> Section:
    found = measures(points, numerals)
    shifts = points["settings"]["sweep_shifts"]
    encodings = ("encoding", ("product", "squares", "sum", "cartesian"))
    draw_grids(found, [(encodings, ("shift_range", shifts))], folder / ENCODING_FIGURE)
    options = [
        (("shift_scope", ("layer", "model")), ("shift_unit", ("batch", "sample"))),
        (("normalization", ("unit", "pixel")), ("border", ("zeros", "extrapolate"))),
    ]
    draw_grids(found, options, folder / OPTIONS_FIGURE)
    section = Section("Sensitivity (N1)", "", points["date"], 0.0)
    seeds = min(points["settings"]["map_seeds"], numerals["settings"]["map_seeds"])
    section.claims = [claim_row(found, encodings, shifts, seeds)]
    section.blocks = [
        Paragraph(
            "Each cell is a mean over seeds, darker where it is better, a dash where nothing was run. All options but "
            "the two of a map have their defaults (product, unit coordinates, uniform shift of range 0.25, one draw a "
            "layer and batch, zeros at the border). The sweep's runs are those of the two experiments above, and their "
            f"time is counted there{NORMALISED if normalised(numerals) else ''}. Images are square, where "
            "`aspect` equals `unit`."
        ),
        Picture(ENCODING_FIGURE, "Encoding and shift range"),
        Picture(OPTIONS_FIGURE, "Scope and unit of the shift; normalization and border"),
        Paragraph(
            "**Under which settings is the positional bias of C2 small?** The five smallest of the swept settings, by "
            "accuracy at the same minus at swapped places, among those whose runs all learnt. They are the best of "
            "many on few seeds: where to look next, and no result."
        ),
        bias_table(found[2].runs),
    ]
    return section


def bias_table(runs: list[Run]) -> Table:
    """The settings with the smallest bias."""
    rows = []
    for variant in sorted({run["variant"] for run in runs}):
        same = select(runs, variant=variant)
        if len(learnt(same)) == len(same):
            tied, swapped = (sum(run["scores"][name] for run in same) / len(same) for name in ("tied", "swapped"))
            options = [str(same[0][name]) for name in GEOMETRY]
            rows.append((tied - swapped, (*options, str(len(same)), f"{tied:.1%}", f"{swapped:.1%}")))
    header = (*(name.replace("_", " ") for name in GEOMETRY), "seeds", "same places", "swapped places", "bias")
    return Table(header, [(*cells, f"{bias:.2f}") for bias, cells in sorted(rows)[:5]])


def claim_row(found: list[Measure], encodings: tuple[str, Sequence], shifts: Sequence[float], seeds: int) -> ClaimRow:
    texts = []
    for measure in (found[0], found[3]):
        known = [
            value for row in grid(measure, encodings, ("shift_range", shifts)) for value in row if value is not None
        ]
        texts.append(f"{measure.title}: {min(known):.1f} to {max(known):.1f}")
    return ClaimRow(
        "N1",
        "sensitivity to shift range, scope, normalisation, border and encoding",
        "named as a next check",
        "; ".join(texts),
        seeds,
        "encoding x shift range",
        MEASURED,
        Headline("sensitivity to the options of the channel", "encoding x shift range", "; ".join(texts), "seeds"),
    )


def draw_grids(found: list[Measure], pairs: Sequence[tuple[tuple, tuple]], target: Path) -> None:
    """One row of heat maps a pair of options, one column a measure. Darker is better."""
    from matplotlib.figure import Figure

    heights = [len(rows[1]) for rows, _ in pairs]
    figure = Figure(
        figsize=(4 * len(found), 0.8 + sum(0.55 * height + 0.9 for height in heights)), layout="constrained"
    )
    panels = figure.subplots(len(pairs), len(found), squeeze=False, height_ratios=heights)
    for line, (rows, columns) in zip(panels, pairs, strict=True):
        for axes, measure in zip(line, found, strict=True):
            values = grid(measure, rows, columns)
            numbers = [[float("nan") if value is None else value for value in row] for row in values]
            axes.imshow(numbers, cmap="Blues_r" if measure.smaller else "Blues", aspect="auto")
            label_cells(axes, values, measure.smaller)
            axes.set_xticks(range(len(columns[1])), [str(value) for value in columns[1]])
            axes.set_yticks(range(len(rows[1])), [str(value) for value in rows[1]])
            axes.set_xlabel(columns[0].replace("_", " "))
            axes.set_title(measure.title, fontsize=10)
        line[0].set_ylabel(rows[0].replace("_", " "))
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=100, format="png")


def label_cells(axes: Any, values: list[list[float | None]], smaller: bool) -> None:
    """Write each cell's number into it, white on the dark half of the colours."""
    known = [value for row in values for value in row if value is not None]
    middle = (min(known) + max(known)) / 2 if known else 0.0
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            dark = value is not None and value != middle and (value < middle) == smaller
            text = "-" if value is None else f"{value:.1f}"
            axes.text(x, y, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")
