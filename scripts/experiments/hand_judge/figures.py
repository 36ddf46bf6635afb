"""Draw the judge's results: how well it tells each kind of defect, and how it counts fingers on each kind of image.

python -m scripts.experiments.hand_judge.figures
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geopos_diffusers.command_line import Parser
from geopos_diffusers.files import atomic_path

from .evaluate import RESULTS

Scores = dict[str, dict[str, Any]]


def areas(results: dict[str, Any]) -> Scores:
    """Areas under the ROC curve of "well formed", by what it is told from."""
    rendered = results["rendered"]
    found = {"all defects": rendered["well_formed_auc"]}
    found |= {kind.replace("_", " "): score for kind, score in rendered["well_formed_auc_by_kind"].items()}
    if labelled := results.get("labelled"):
        found["generated images, labelled"] = labelled["well_formed_auc"]
    return found


def shares(results: dict[str, Any]) -> Scores:
    """Shares of images whose raised fingers are counted right."""
    found = {"rendered": results["rendered"]["fingers"], "rendered, front": results["rendered"]["fingers_front"]}
    found |= {f"photographs, {part}": scores["fingers"] for part, scores in results.get("photographs", {}).items()}
    if labelled := results.get("labelled"):
        found["generated, labelled"] = labelled["fingers"]
        found["generated, labelled well formed"] = labelled["fingers_of_well_formed"]
    return found


def draw(results: dict[str, Any], target: Path) -> None:
    """Write the figure as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    panels = [
        (axes[0], areas(results), "area under the ROC curve", 0.5),
        (axes[1], shares(results), "counted right", 1 / 6),
    ]
    for axis, scores, title, chance in panels:
        for place, score in enumerate(scores.values()):
            axis.plot([score["low"], score["high"]], [place, place], color="tab:blue")
            axis.plot(score["value"], place, "o", color="tab:blue")
        axis.axvline(chance, color="gray", linestyle=":", linewidth=1)
        axis.set_yticks(range(len(scores)), list(scores))
        axis.invert_yaxis()
        axis.set_xlim(min(0.45, chance - 0.02), 1.01)
        axis.set_title(title, fontsize=10)
        axis.grid(axis="x", alpha=0.3)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default=RESULTS, help="what evaluate.py wrote (default: %(default)s)")
    args = parser.parse_args(argv)
    path = Path(args.results)
    draw(json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".png"))


if __name__ == "__main__":
    sys.exit(main())
