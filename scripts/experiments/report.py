"""The pages of the paper's claims, from results files alone.

    python -m scripts.experiments.report --results docs/results --output docs/results

Writes paper.md with a row a claim, paper/EXPERIMENT.md with everything of one experiment, paper.html with all of it,
and the figures. A section is there if its results files are. To add an experiment, write `section.py` in a folder of
its own that turns its results into a `Section`, and add it to `SECTIONS` and `PAGES`.
"""

import argparse
from pathlib import Path
from typing import Any

from geopos_diffusers.command_line import Parser
from geopos_diffusers.errors import DataError
from geopos_diffusers.files import write_text
from geopos_diffusers.training.processes import run_script

from .center_of_mass import section as center_of_mass
from .cost import section as cost
from .depth import section as depth
from .diffusion import section as diffusion
from .gan import section as gan
from .own_rates import section as own_rates
from .page import Paragraph, Place, Section, html_page, markdown, markdown_sections, minutes, summary_table
from .positional_bias import section as positional_bias
from .results import read_results
from .sensitivity import section as sensitivity
from .study import claims as study_claims
from .vae import section as vae
from .verdict import LEAST_SEEDS, LEVEL

TITLE = "The paper's experiments"
INTRODUCTION = (
    Paragraph(
        "What this project found of the claims of the paper (arXiv 2401.01951). Of the paper only the abstract and a "
        "digest were at hand, so data, networks and budgets are our reading; a claim that fails here fails in these "
        "settings. These pages are made by `python -m scripts.experiments.report` from "
        "the JSON files beside them, and `make paper-quick` runs every experiment's whole path at a small size."
    ),
    Paragraph(
        "Intervals are 95% intervals of Student's t over seeds; ratios are paired by seed, by the t of the logarithms. "
        f"A verdict needs {LEAST_SEEDS} seeds; with fewer the row says **suggestive**. An effect is there if its p "
        f"value is below {LEVEL}, corrected by Holm's method for all tests of its table on the experiment's page (the "
        "intervals are not corrected). **Reproduced**: the effect is there and the paper's figure does not lie beyond "
        "the interval; **in part**: it is there but smaller; **opposite**: it goes the other way; **not reproduced**: "
        "none was shown. Questions that the paper leaves open are answered **yes**, **the other way**, or **no**: none "
        "was shown. **Measured** stands where there is nothing to test, **not tested** where a test is not possible."
    ),
)
# What each page holds, in the order of the claims.
PAGES = {
    "center_of_mass": "Centre of mass (C1)",
    "positional_bias": "Positional bias (C2)",
    "sensitivity": "Sensitivity to the options of the geometry channel (N1)",
    "gan": "GANs (C3, Q1, N3)",
    "vae": "VAEs (C4, Q2)",
    "cost": "Parameters and time (C5)",
    "depth": "Depth (C6)",
    "diffusion": "Diffusion models from random weights (C6, N2)",
    "own_rates": "Each variant at its own best learning rate (C1, C2, C4, C6)",
}
SECTIONS = {
    "center_of_mass": center_of_mass,
    "positional_bias": positional_bias,
    "gan": gan,
    "vae": vae,
    "cost": cost,
    "depth": depth,
}


def build_pages(results: Path, figures: Path) -> dict[str, list[Section]]:
    """All sections whose results are in the folder `results`, by the name of their page; figures are drawn into
    `figures`.

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
        for experiment in (*SECTIONS, "own_rates")
    }
    if not any(found.values()):
        raise DataError(f"{results} holds no results: no paper_*.json")
    pages = {
        experiment: [SECTIONS[experiment].build_section(values, place) for place, values in files.items()]
        for experiment, files in found.items()
        if experiment in SECTIONS
    }
    if found["center_of_mass"] and found["positional_bias"]:
        points = next(iter(found["center_of_mass"].values()))
        numerals = max(found["positional_bias"].values(), key=positional_bias.normalised)
        pages["sensitivity"] = [sensitivity.build_section(points, numerals, figures)]
    pages["diffusion"] = [
        diffusion.build_section(values, place)
        for place, values in found["own_rates"].items()
        if values["task"] == "diffusion"
    ]
    pages["own_rates"] = [
        own_rates.build_section(values, place, common_rate_results(found, values["task"]))
        for place, values in found["own_rates"].items()
        if values["task"] != "diffusion"
    ]
    return {name: pages[name] for name in PAGES if pages.get(name)}


def write_pages(pages: dict[str, list[Section]], output: Path, study: list[Section]) -> None:
    """Write paper.md, paper.html and paper/*.md into the folder `output`.

    Args:
        study: what the study of pretrained models, which has a page of its own, says of the paper's questions.
    """
    sections = [section for page in pages.values() for section in page]
    total = minutes(sum(section.cpu_seconds for section in sections))
    summary = [
        *INTRODUCTION,
        summary_table({f"paper/{name}.md": page for name, page in pages.items()} | {"study.md": study}),
        Paragraph(
            f"The runs of these pages, without the study, took {total} of one thread, on a machine that other work "
            "shared. The pages of the experiments name their commands."
        ),
    ]
    (output / "paper").mkdir(exist_ok=True)
    for name, page in pages.items():
        write_text(output / "paper" / f"{name}.md", markdown_sections(PAGES[name], page, "../"))
    write_text(output / "paper.md", markdown(TITLE, summary))
    write_text(output / "paper.html", html_page(TITLE, summary, sections))


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
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="folder of the JSON files")
    parser.add_argument("--output", type=Path, default=Path("docs/results"), help="folder of the pages and figures")
    args = parser.parse_args()
    pages = build_pages(args.results, args.output)
    write_pages(pages, args.output, study_claims.build_sections(args.results))
    print(f"wrote {args.output / 'paper.md'}, paper.html and {len(pages)} pages in {args.output / 'paper'}")


if __name__ == "__main__":
    run_script(main)
