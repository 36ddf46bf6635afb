"""The page docs/results/repair.md, from its JSON file."""

from collections.abc import Callable
from typing import Any

import numpy as np

from geopos_diffusers.metrics.bootstrap import Interval, bootstrap_means

from ..page import markdown_table

Row = dict[str, Any]
Values = Callable[[Row], tuple[float, float]]  # of a hand, before and after
NOTHING = float("nan")
TITLES = {
    "photographs": "Photographs with a spoiled finger",
    "rendered": "Rendered hands with a defect",
    "unspoiled photographs": "The same photographs, not spoiled",
}


def of_looks(value: Callable[[Row, Row], float]) -> Values:
    """A value of a hand from what both judges say of its image, before and after."""
    return lambda row: (value(row, row["before"]), value(row, row["after"]))


MEASURES: dict[str, Values] = {
    "well-formedness (2nd judge, which chose)": of_looks(lambda row, look: look["well_formed"]),
    "called well formed (2nd judge, which chose)": of_looks(lambda row, look: float(look["well_formed"] > 0.5)),
    "well-formedness of all variants, unchosen": lambda row: (row["square_before"], float(np.mean(row["variants"]))),
    "fingers right (2nd judge, which chose)": of_looks(
        lambda row, look: float(look["judge_fingers"] == row["fingers"])
    ),
    "hand found (detector)": of_looks(lambda row, look: float(look["found"])),
    "found and fingers right (detector)": of_looks(lambda row, look: float(look["detector_fingers"] == row["fingers"])),
    "found and fingers right of all variants, unchosen (detector)": lambda row: (
        (float(row["count_before"]), float(np.mean(row["counts"]))) if "counts" in row else (NOTHING, NOTHING)
    ),
    "distance from the unspoiled photograph (0 to 255)": lambda row: (
        row.get("distance_before", NOTHING),
        row.get("distance_after", NOTHING),
    ),
}


def table(rows: list[Row], seed: int) -> str:
    """Each measure before, after, and the mean change, with 95% intervals of the paired bootstrap over the hands."""
    lines = []
    for name, values in MEASURES.items():
        pairs = np.array([values(row) for row in rows])
        if not np.isnan(pairs).any():
            columns = np.column_stack([pairs, pairs[:, 1] - pairs[:, 0]])
            lines.append([name, *map(cell, bootstrap_means(columns, seed=seed), ("", "", "+"))])
    return markdown_table(["measure", "before", "after", "change"], lines)


def cell(interval: Interval, sign: str) -> str:
    large = max(abs(value) for value in (interval.value, interval.low, interval.high) if value is not None) >= 2
    style = f"{sign}.{1 if large else 2}f"
    return f"{interval.value:{style}} [{interval.low:{style}}, {interval.high:{style}}]"


def by_kind(rows: list[Row]) -> str:
    """One line a kind of defect: how many, how many replaced, well-formedness before and after."""
    lines = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        own = [row for row in rows if row["kind"] == kind]
        scores = (np.mean([row[when]["well_formed"] for row in own]) for when in ("before", "after"))
        replaced = sum(row["replaced"] for row in own)
        lines.append([kind.replace("_", " "), str(len(own)), str(replaced), *(f"{score:.2f}" for score in scores)])
    return markdown_table(["what is wrong", "hands", "replaced", "well-formedness before", "after"], lines)


def page(results: dict[str, Any], name: str, picture: bool = False) -> str:
    """name: of the results file. picture: whether there is one of rendered hands beside it."""
    settings = results["settings"]
    parts = []
    for run in results["runs"]:
        rows = run["hands"]
        finders = {
            name: sum(row["found_by"] == name for row in rows) for name in ("detector", "second judge", "nobody")
        }
        found = ", ".join(f"{count} by {'the ' if name != 'nobody' else ''}{name}" for name, count in finders.items())
        kept = len(rows) - sum(row["replaced"] for row in rows)
        parts.append(
            f"## {TITLES[run['variant']]}\n\n{len(rows)} hands, found {found}; {len(rows) - kept} were replaced, and "
            f"{kept} kept because no variant scored better.\n\n{table(rows, settings['seed'])}\n"
        )
        if len({row["kind"] for row in rows}) > 1:
            parts.append(f"{by_kind(rows)}\n")
        if run["variant"] == "rendered" and picture:
            parts.append(f"![The first of these hands, before and after]({name}.png)\n")
    options = settings["options"]
    return f"""# Repaired hands

Does `geopos repair` with the packaged model `{settings["model"]}` make hands better? {results["date"]}, one CPU core,
{results["cpu_seconds"] / sum(len(run["hands"]) for run in results["runs"]):.1f} s of processor time a hand.

```bash
python -m scripts.experiments.repair.run --photographs sign-language-digits --model {settings["model"]} \\
    --output runs/{name} --results docs/results/{name}.json --num-images {settings["images"]} --seed {settings["seed"]}
```

{options["candidates"]} variants a hand, strength {options["strength"]:g}, margin {options["margin"]:g},
{options["steps"]} steps, guidance {options["guidance_scale"]:g}. The prompt says the number of fingers, for which the
second judge looks when it chooses. A hand that nobody finds is repaired over the whole image. The photographs are of
sign language digits (Mavi et al., arXiv 2011.08927, Apache-2.0), of people that no judge was trained on, with one to
five fingers; a raised finger of each is erased, smeared or doubled.

The second judge chooses the variant that is most probably well formed with this number, so **its own figures are
flattered**: the best of several by a noisy judge scores well even where nothing is better. Read beside them the mean of
all variants, the detector's figures, and the distance from the photograph before it was spoiled (root mean square under
the mask). In brackets: 95% intervals (paired bootstrap over the hands).

{chr(10).join(parts)}"""
