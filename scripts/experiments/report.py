"""The page of the paper's claims, from results files alone: paper.md, paper.html and their figures.

    python -m scripts.experiments.report --results docs/results --output docs/results

A section is there if its results files are. To add an experiment, write `section.py` in a folder of its own that turns
its results into a `Section`, and add it to `build_sections`.
"""

import argparse
from pathlib import Path
from typing import Any

from geopos_diffusers.errors import DataError
from geopos_diffusers.files import write_text
from geopos_diffusers.training.processes import run_script

from .center_of_mass import section as center_of_mass
from .cost import section as cost
from .depth import section as depth
from .gan import section as gan
from .own_rates import section as own_rates
from .page import Paragraph, Place, Section, render_html, render_markdown
from .positional_bias import section as positional_bias
from .results import read_results
from .sensitivity import section as sensitivity
from .vae import section as vae

TITLE = "The paper's experiments"
INTRODUCTION = (
    Paragraph(
        "What this project found of the claims of the paper (arXiv 2401.01951). Of the paper only the abstract and a "
        "digest were at hand, so data, networks and budgets are our reading; a claim that fails here fails in these "
        "settings. This page is made by `python -m scripts.experiments.report` from "
        "the JSON files beside it, and `make paper-quick` runs every experiment's whole path at a small size."
    ),
    Paragraph(
        "Intervals are 95% bootstrap intervals over seeds; ratios resample seeds in pairs. Verdicts are computed: "
        "**reproduced** if the effect is there and the paper's figure does not lie beyond the interval, **in part** if "
        "the effect is there but smaller, else **not reproduced**. CPU time is of one thread on a machine that other "
        "work shared."
    ),
)


def build_sections(results: Path, figures: Path) -> list[Section]:
    """All sections whose results are in the folder `results`; figures are drawn into `figures`.

    An experiment may have several results files, `paper_NAME*.json`, each with a section. The sensitivity sweep is that
    of the first one of C1, and of C2 that of networks with batch normalisation where there are some.

    Raises:
        DataError: there are none, or a file is damaged.
    """
    found = {
        experiment: {
            Place(path, figures): read_results(path, experiment)
            for path in sorted(results.glob(f"paper_{experiment}*.json"))
        }
        for experiment in ("center_of_mass", "positional_bias", "vae", "gan", "depth", "own_rates", "cost")
    }
    if not any(found.values()):
        raise DataError(f"{results} holds no results: no paper_*.json")
    sections = []
    for experiment, module in (("center_of_mass", center_of_mass), ("positional_bias", positional_bias)):
        sections += [module.build_section(values, place) for place, values in found[experiment].items()]
    if found["center_of_mass"] and found["positional_bias"]:
        points = next(iter(found["center_of_mass"].values()))
        numerals = max(found["positional_bias"].values(), key=positional_bias.normalised)
        sections.append(sensitivity.build_section(points, numerals, figures))
    for experiment, module in (("vae", vae), ("gan", gan), ("depth", depth)):
        sections += [module.build_section(values, place) for place, values in found[experiment].items()]
    for place, values in found["own_rates"].items():
        sections.append(own_rates.build_section(values, place, common_rate_results(found, values["task"])))
    return sections + [cost.build_section(values) for values in found["cost"].values()]


def common_rate_results(found: dict[str, dict[Place, dict[str, Any]]], task: str) -> dict[str, Any] | None:
    """The results of an experiment at one learning rate for all, which those at own rates are shown beside.

    Of positional bias those with batch normalisation, as at own rates. None where there are none; of VAEs, whose files
    differ in more than the rate, always.
    """
    results = [] if task == "vae" else list(found[task].values())
    if task == "positional_bias":
        results = [values for values in results if positional_bias.normalised(values)]
    return results[0] if results else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="folder of the JSON files")
    parser.add_argument("--output", type=Path, default=Path("docs/results"), help="folder of the page and its figures")
    args = parser.parse_args()
    sections = build_sections(args.results, args.output)
    write_text(args.output / "paper.md", render_markdown(TITLE, INTRODUCTION, sections))
    write_text(args.output / "paper.html", render_html(TITLE, INTRODUCTION, sections))
    print(f"wrote {args.output / 'paper.md'} and paper.html with {len(sections)} sections")


if __name__ == "__main__":
    run_script(main)
