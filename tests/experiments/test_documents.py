"""Figures in documents beside the results that they are from, cell by cell.

A table that is checked stands right below a comment such as `<!-- table: trained_parts -->`, that names one of SOURCES.
Its rows and columns are any of the results', under the same names; text in brackets after a name explains it.
"""

import re
import shutil
import sys
from functools import partial
from importlib import import_module
from itertools import takewhile
from pathlib import Path

import pytest
from experiments.arms_page import estimate_cell
from experiments.results import mean_score, read_results, select
from experiments.study.measures import MEASURES

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "docs" / "results"
README = REPOSITORY / "README.md"


def rows_below(text: str, start: str) -> list[dict[str, str]]:
    """The rows of the first table after `start`, by the names of their columns."""
    lines = text.split(start, 1)[1].lstrip("\n").splitlines()
    table = [*takewhile(lambda line: line.startswith("|"), lines)]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def name_of(text: str) -> str:
    """The name in a cell, without the explanation in brackets."""
    return text.partition(" (")[0].strip()


def trained_parts(row: dict[str, str]) -> dict[str, str]:
    """What the cells of a row must hold, by column."""
    results = read_results(RESULTS / "trained_parts.json", "trained_parts")
    first, *columns = row
    name = name_of(row[first])
    values, runs = results["variants"][name], select(results["runs"], variant=name)
    known = {
        "parameters": f"{values['parameters']:,}",
        "best rate": f"{values['best_rate']:g}",
        "seeds": str(len(runs)),
    }
    known |= {f"{size} px": estimate_cell(mean_score(runs, size)) for size in runs[0]["scores"]}
    return {column: known[name_of(column)] for column in columns}


def study(task: str, row: dict[str, str]) -> dict[str, str]:
    results = read_results(RESULTS / "study" / f"{task}.json", "study")
    first, *columns = row
    name = name_of(row[first])
    runs = select(results["runs"], variant=name)
    known = {"parameters": f"{results['variants'][name]['parameters']:,}" if name in results["variants"] else ""}
    for score, measure in MEASURES.items():
        cell = estimate_cell(mean_score(runs, score), measure.style) if score in runs[0]["scores"] else ""
        known[measure.label] = cell or known.get(measure.label, "")
    return {column: known[name_of(column)] for column in columns}


def paper(row: dict[str, str]) -> dict[str, str]:
    page = (RESULTS / "paper.md").read_text(encoding="utf-8")
    stored = [
        found
        for found in rows_below(page, page.split("| id |")[0])
        if (found["id"], found["claim"]) == (row["id"], row["claim"])
    ]
    assert len(stored) == 1, f"paper.md has {len(stored)} rows of {row['id']}, {row['claim']}"
    return {column: stored[0][column] for column in row}


SOURCES = {"trained_parts": trained_parts, "paper": paper, "study/circular": partial(study, "circular")}
MARKER = re.compile(r"<!-- table: (.*?) -->")


def test_the_readme_shows_what_was_trained():
    text = README.read_text(encoding="utf-8")
    assert "study/circular" in MARKER.findall(text)
    assert len(text.splitlines()) <= 120


@pytest.mark.parametrize("source", MARKER.findall(README.read_text(encoding="utf-8")))
def test_tables_of_the_readme_cell_by_cell(source):
    rows = rows_below(README.read_text(encoding="utf-8"), f"<!-- table: {source} -->")
    assert len(rows) >= 3
    for row in rows:
        for column, value in SOURCES[source](row).items():
            assert row[column] == value, f"{source}, {next(iter(row.values()))}, {column}"


def test_all_markers_are_known():
    for path in [README, *(REPOSITORY / "docs").glob("*.md")]:
        assert set(MARKER.findall(path.read_text(encoding="utf-8"))) <= SOURCES.keys(), path.name


def test_a_changed_cell_is_found():
    row = {"trained": "geometry (multilinear)", "parameters": "14,241", "64 px (trained)": "0.600 [0.597, 0.604]"}
    assert trained_parts(row) == {"parameters": "14,240", "64 px (trained)": "0.600 [0.597, 0.604]"}


def test_the_stored_pages_are_made_of_the_stored_results(tmp_path):
    report, claims = import_module("experiments.report"), import_module("experiments.study.claims")
    report.write_pages(report.build_pages(RESULTS, tmp_path), tmp_path, claims.build_sections(RESULTS))
    pages = [
        Path("paper.md"),
        Path("paper.html"),
        *(Path("paper", page.name) for page in (tmp_path / "paper").iterdir()),
    ]
    assert {path.name for path in (RESULTS / "paper").iterdir()} == {path.name for path in pages[2:]}
    for path in pages:
        assert (tmp_path / path).read_text(encoding="utf-8") == (RESULTS / path).read_text(encoding="utf-8"), path
    for page in pages:
        for figure in re.findall(r"!\[.*?\]\((.*?)\)", (tmp_path / page).read_text(encoding="utf-8")):
            assert (RESULTS / page.parent / figure).is_file(), figure


def test_the_pages_of_the_study_and_of_frames_are_made_of_the_stored_results(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    shutil.copytree(RESULTS, folder)
    pages = [folder / name for name in ("study.md", "study.html", "frames.md")]
    for page in pages:
        page.unlink()
    for name in ("study.page", "frames.section"):
        monkeypatch.setattr(sys, "argv", ["program", "--results", str(folder)])
        import_module(f"experiments.{name}").main()
    for page in pages:
        assert page.read_text(encoding="utf-8") == (RESULTS / page.name).read_text(encoding="utf-8"), page.name


def test_the_page_of_the_demo_and_the_readme_have_its_stored_figures():
    results = read_results(RESULTS / "demo.json", "demo")
    page = import_module("experiments.demo.section").page(results, RESULTS / "demo.json")
    assert page == (RESULTS / "demo.md").read_text(encoding="utf-8")
    overlap = results["summary"]["judged"]["iou"]
    shown = [f"{overlap[name]['value']:.2f}" for name in ("geometry", "bias", "lora", "base")]
    assert "overlap of hands and boxes is {}, {}, {} and {}".format(*shown) in README.read_text(encoding="utf-8")
