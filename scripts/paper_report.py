"""The page of the paper's claims, from results files alone: paper.md, paper.html and their figures.

    python scripts/paper_report.py --results docs/results --output docs/results

A section is there if its results files are. To add an experiment, write a module in `geopos_diffusers/paper` that turns
its results into a `Section`, and add it to `build_sections`.
"""

import argparse
from pathlib import Path

from geopos_diffusers.errors import DataError
from geopos_diffusers.files import write_text
from geopos_diffusers.paper import center_of_mass, cost, depth, gan, positional_bias, sensitivity, vae
from geopos_diffusers.paper.page import Paragraph, Section, render_html, render_markdown
from geopos_diffusers.paper.runs import read_results
from geopos_diffusers.training.processes import run_script

TITLE = "The paper's experiments"
INTRODUCTION = (
    Paragraph(
        "What this project found of the claims of the paper (arXiv 2401.01951). Of the paper only the abstract and a "
        "digest were at hand, so data, networks and budgets are our reading; a claim that fails here fails in these "
        "settings. This page is made by `python scripts/paper_report.py --results docs/results --output docs/results` "
        "from the JSON files beside it, and `make paper-quick` runs every experiment's whole path at a small size."
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

    Raises:
        DataError: there are none, or a file is damaged.
    """
    found = {
        experiment: read_results(path, experiment)
        for experiment in ("center_of_mass", "positional_bias", "depth", "cost")
        if (path := results / f"paper_{experiment}.json").is_file()
    }
    gans = {path.stem: read_results(path, "gan") for path in sorted(results.glob("paper_gan*.json"))}
    autoencoders = [read_results(path, "vae") for path in sorted(results.glob("paper_vae_*.json"))]
    if not (found or gans or autoencoders):
        raise DataError(f"{results} holds no results: no paper_*.json")
    sections = []
    points, numerals = found.get("center_of_mass"), found.get("positional_bias")
    if points:
        sections.append(center_of_mass.build_section(points, figures))
    if numerals:
        sections.append(positional_bias.build_section(numerals, figures))
    if points and numerals:
        sections.append(sensitivity.build_section(points, numerals, figures))
    sections += [vae.build_section(photographs, figures) for photographs in autoencoders]
    sections += [gan.build_section(value, name, results, figures) for name, value in gans.items()]
    if "depth" in found:
        sections.append(depth.build_section(found["depth"], figures))
    if "cost" in found:
        sections.append(cost.build_section(found["cost"]))
    return sections


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
