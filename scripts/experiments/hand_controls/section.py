"""The page of the controls: which measures see defects, and which are moved by what is none."""

from typing import Any

from geopos_diffusers.metrics.measures import MEASURES
from geopos_diffusers.metrics.quality import QUALITY

from ..page import markdown_table
from ..results import commands_of
from .data import CHANGES, SIZES

MARKS = {True: "yes", False: "**no**", None: "-"}
# Rows of a table cannot be broken.
# ruff: noqa: E501
HEAD = """# Controls of the measures of hands

Does a measure see defects, and is it moved by nothing else? Rendered hands whose truth is known: {images} proper,
{images} with one defect each (fused, missing, extra, bent-back fingers, wrong lengths and others, see
[rendered data](../rendered_data.md)), and {images} for the reference; {side} pixels; seed {seed}; {date}.

```bash
{command}
```

| control | passes if |
|---|---|
| defects | the score gets worse with each larger share of defective hands (0, 10, 25, 50, 100%), and the interval of the difference between all and none excludes 0 |
| halves | of {draws} random halves of the proper hands, the interval of the difference holds 0 in at least {least:.0%} |
| changes | blur, half the contrast and JPEG improve the score of a set with half of the hands defective by no more than 3 points (shares) or 0.15 standard deviations (numbers) |
| sizes | at 64, 96 and 256 pixels the same images score within 5 points or 0.25 standard deviations |

**A measure that fails a control is marked in every report.**
"""


def page(results: dict[str, Any]) -> str:
    """The page as Markdown."""
    settings = results["settings"]
    measures = [run for run in results["runs"] if run["kind"] != "set"]
    sets = [run for run in results["runs"] if run["kind"] == "set"]
    parts = [
        HEAD.format(
            date=results["date"],
            command="\n".join(commands_of(results)),
            least=settings["least_coverage"],
            **{name: settings[name] for name in ("images", "side", "seed", "draws")},
        ),
        "## Measures with a value for each image\n",
        verdict_table(measures),
        "\nThe score by share of defective hands, and by how much all are worse than none:\n",
        curve_table(measures),
        "\nWhat the score gains from a change (above 0: better), paired; the tolerance is the last column:\n",
        gain_table(measures, "gains", tuple(CHANGES), "gain_tolerance"),
        "\nWhat it gains at another size:\n",
        gain_table(measures, "sizes", tuple(f"{side} px" for side in SIZES), "size_tolerance"),
        "\n## Scores of sets\n",
        f"By share of defective hands; in how many of {settings['set_draws']} random halves of the proper hands the interval of the difference holds 0 (mostly more than 95%, since both halves share the reference); then for half of them defective, as they are and after a change:\n",
        set_table(sets),
    ]
    return "\n".join(parts) + "\n"


def verdict_table(runs: list[dict[str, Any]]) -> str:
    controls = ("defects", "halves", "changes", "sizes")
    return markdown_table(
        ["measure", *controls],
        [[title(run), *(MARKS[run["passes"][control]] for control in controls)] for run in runs],
    )


def title(run: dict[str, Any]) -> str:
    return f"{MEASURES[run['variant']].title} (`{run['variant']}`)"


def curve_table(runs: list[dict[str, Any]]) -> str:
    return markdown_table(
        ["measure", "0%", "10%", "25%", "50%", "100%", "worse by"],
        [[f"`{run['variant']}`", *map(number, run["curve"]), interval(run["worsening"])] for run in runs],
    )


def gain_table(runs: list[dict[str, Any]], part: str, names: tuple[str, ...], allowed: str) -> str:
    return markdown_table(
        ["measure", *names, "tolerance"],
        [[f"`{run['variant']}`", *(interval(run[part][name]) for name in names), number(run[allowed])] for run in runs],
    )


def set_table(runs: list[dict[str, Any]]) -> str:
    names = list(runs[0]["changes"])
    return markdown_table(
        ["score", "better", "0%", "10%", "25%", "50%", "100%", "halves", "half defective", *names],
        [
            [
                f"`{run['variant']}`",
                QUALITY[run["variant"].split("/")[1]].better,
                *map(number, run["curve"]),
                "-" if run["null_coverage"] is None else f"{run['null_coverage']:.0%}",
                number(run["mixed"]["value"]),
                *(number(run["changes"][name]["value"]) for name in names),
            ]
            for run in runs
        ],
    )


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def interval(value: dict[str, float | None]) -> str:
    if value["value"] is None:
        return "-"
    return f"{value['value']:+.3f} [{value['low']:.3f}, {value['high']:.3f}]"
