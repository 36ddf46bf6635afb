"""The page of the scores: every set beside its reference, by both judges."""

from typing import Any

from geopos_diffusers.metrics.measures import MEASURES

from ..page import markdown_table

SHOWN = (
    "found",
    "too_many_hands",
    "presence",
    "found_and_right",
    "handedness_right",
    "anatomy_beyond",
    "anatomy_faults",
    "judge_present",
    "judge_well_formed",
    "judge_count_right",
    "judge_handedness_right",
    "good",
)
AGREEMENT = {
    "found_kappa": "a hand is there",
    "fingers_kappa": "raised fingers",
    "handedness_kappa": "left or right",
    "anatomy_correlation": "anatomy and well-formedness",
    "presence_correlation": "presence and well-formedness",
}
HEAD = """# Scores of hands by both judges

Photographs, rendered hands, the packaged model and adapters; {images} images a set (all photographs); seed {seed};
{date}. 95% intervals over images. One training seed an adapter: no row says more than how these images score.

```bash
{command}
```

Each group has its reference. In brackets after a score: what the reference scores, weighted to the same attributes.
How far each measure can be trusted: [controls](hand_controls.md).
"""


def page(results: dict[str, Any]) -> str:
    """The page as Markdown."""
    settings = results["settings"]
    parts = [
        HEAD.format(images=settings["images"], seed=settings["seed"], date=results["date"], command=results["command"])
    ]
    for group in dict.fromkeys(run["group"] for run in results["runs"]):
        runs = [run for run in results["runs"] if run["group"] == group]
        parts += [f"## {group.capitalize()}\n", score_table(runs), ""]
        if differences := difference_rows(results["comparisons"][group]):
            parts += [f"Differences from {results['comparisons'][group][0]['baseline']}, paired; p by Holm:\n"]
            parts += [markdown_table(["measure", *(run["variant"] for run in runs[1:-1])], differences), ""]
        parts += ["Agreement of the judges (kappa; Spearman's correlation in the last two rows):\n"]
        parts += [agreement_table(runs), ""]
    return "\n".join(parts)


def score_table(runs: list[dict[str, Any]]) -> str:
    names = [name for name in SHOWN if any(known(run["scores"].get(name)) for run in runs)]
    kid = [key for key in runs[0]["quality"] if key.endswith("/kid") or key.endswith("/fid")]
    rows = [[marked(name), *(score(run, name) for run in runs)] for name in names]
    rows += [[key, *(interval(run["quality"].get(key)) for run in runs)] for key in kid]
    return markdown_table(["", *(f"{run['variant']} ({run['scored']})" for run in runs)], rows)


def marked(name: str) -> str:
    measure = MEASURES[name]
    return f"{measure.title}{' (!)' if measure.warning else ''}"


def score(run: dict[str, Any], name: str) -> str:
    text = interval(run["scores"].get(name), MEASURES[name].kind)
    reference = (run["reference_scores"] or {}).get(name)
    return f"{text} ({interval(reference, MEASURES[name].kind, ends=False)})" if known(reference) else text


def difference_rows(comparisons: list[dict[str, Any]]) -> list[list[str]]:
    others = list(dict.fromkeys(row["other"] for row in comparisons))
    rows = []
    for name in SHOWN:
        found = {row["other"]: row for row in comparisons if row["measure"] == name}
        if found:
            rows.append([marked(name), *(difference(found.get(other), MEASURES[name].kind) for other in others)])
    return rows


def difference(row: dict[str, Any] | None, kind: str) -> str:
    if row is None or not known(row["difference"]):
        return "-"
    p = row["p_holm"]
    return f"{interval(row['difference'], kind, sign='+')}, p {'-' if p is None else f'{p:.2g}'}"


def agreement_table(runs: list[dict[str, Any]]) -> str:
    rows = [[title, *(interval(run["agreement"].get(name)) for run in runs)] for name, title in AGREEMENT.items()]
    return markdown_table(["", *(run["variant"] for run in runs)], rows)


def known(value: dict[str, float | None] | None) -> bool:
    return value is not None and value["value"] is not None


def interval(value: dict[str, float | None] | None, kind: str = "number", sign: str = "", ends: bool = True) -> str:
    """Such as "93% [90, 95]" of a share, "0.12 [0.10, 0.14]" of a number."""
    if value is None or value["value"] is None:
        return "-"
    middle, low, high = (value[name] for name in ("value", "low", "high"))
    if kind == "share":
        text = f"{100 * middle:{sign}.0f}%"
        return f"{text} [{100 * low:.0f}, {100 * high:.0f}]" if ends and low is not None else text
    text = f"{middle:{sign}.3f}"
    return f"{text} [{low:.3f}, {high:.3f}]" if ends and low is not None else text
