import json
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
from experiments.center_of_mass import section as center_of_mass
from experiments.page import (
    ClaimRow,
    Headline,
    Paragraph,
    Picture,
    Section,
    Table,
    format_interval,
    html_page,
    markdown_sections,
    summary_table,
)
from experiments.positional_bias import section as positional_bias
from experiments.results import read_results

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.bootstrap import Interval

REPOSITORY = Path(__file__).parents[2]
HEAD = {"format_version": 2, "command": "python x.py --a b", "date": "2020-02-02", "cpu_seconds": 90.0}
DENSITIES = ("sparse", "dense", "all")


def run(variant, seed, data, head, widths, value, tests):
    record = {"variant": variant, "data": data, "head": head, "seed": seed, "widths": widths}
    record["parameters"] = 100 + widths[-1]
    return record | {"scores": {test: value * factor * (1 + 0.01 * seed) for test, factor in tests.items()}}


def points_results():
    """GeoConv's loss is 0.5 of the convolution's and 0.8 of CoordConv's; 10 times both in the region never shown."""
    tests = {f"{d}/{r}": 1 for d in DENSITIES for r in ("everywhere", "three_quarters")}
    tests |= {f"{d}/fourth_quarter": 10 for d in DENSITIES}
    runs = []
    for data in ("all/everywhere", "all/three_quarters", "sparse/everywhere"):
        for widths, seeds, ending in (([4, 8], 5, ""), ([4, 9], 5, ", matched"), ([4], 1, "")):
            for seed in range(seeds):
                runs.append(run(f"convolution{ending}", seed, data, "average", widths, 0.01, tests))
                runs.append(run(f"GeoConv, no shift{ending}", seed, data, "average", widths, 0.005, tests))
                if not ending:
                    runs.append(run("CoordConv", seed, data, "average", widths, 0.00625, tests))
    settings = {
        "size": 32, "widths": [4, 8], "shallow_widths": [4], "steps": 5, "batch_size": 2, "map_seeds": 1,
        "sweep_shifts": [0.0, 0.25],
    }  # fmt: skip
    chosen = dict.fromkeys(("all/everywhere", "all/three_quarters"), "GeoConv, no shift")
    more = {"experiment": "center_of_mass", "head": "average", "chosen_on_validation": chosen}
    runs = [run | {"kind": "geo", **OPTIONS, "shift_range": 0.0} if "Geo" in run["variant"] else run for run in runs]
    return HEAD | more | {"settings": settings, "runs": runs}


OPTIONS = {"encoding": "product", "normalization": "unit", "shift_scope": "layer", "shift_unit": "batch"}
OPTIONS |= {"border": "zeros", "shift_range": 0.25}
# How much of the accuracy is left where places are swapped.
SWAPPED = {"convolution": 1.0, "CoordConv": 0.0, "GeoConv, cartesian": 0.2, "GeoConv, no shift": 0.1, "GeoConv": 4 / 9}


def numerals_results():
    """Bias of 0.9 for CoordConv, 0.5 for the default GeoConv and none for the convolution."""
    runs = []
    for data, head in (("tied", "maximum"), ("everywhere", "maximum"), ("tied", "average"), ("tied", "flatten")):
        for seed in range(5):
            for variant, factor in SWAPPED.items():
                tests = {"validation": 1, "tied": 1, "swapped": factor, "everywhere": 0.5, "outside": 0.5}
                geo = {"kind": "geo", **OPTIONS} if "Geo" in variant else {}
                runs.append(run(variant, seed, data, head, [4, 8], 0.9, tests) | geo)
    settings = {"size": 56, "widths": [4, 8], "steps": 5, "batch_size": 2, "map_seeds": 1, "sweep_shifts": [0.0, 0.25]}
    return HEAD | {"experiment": "positional_bias", "head": "maximum", "settings": settings, "runs": runs}


def cost_results():
    runs = [
        {"variant": name, "network": "tiny", "parameters": parameters, "seconds": 0.001 * ratio, "ratio": ratio}
        | {"low": ratio, "high": ratio}
        for name, parameters, ratio in (
            *(("convolution", 100, 1.0), ("GeoConv", 208, 1.02), ("CoordConv by concatenation", 316, 1.1)),
            ("CoordConv, computed as GeoConv is", 316, 1.1),
        )
    ]
    network = {"name": "tiny", "widths": [4, 8], "size": 32, "batch": 2, "kernel_taps": 108}
    return HEAD | {"experiment": "cost", "settings": {"rounds": 15}, "networks": [network], "runs": runs}


@pytest.fixture
def folder(tmp_path):
    for results in (points_results(), numerals_results(), cost_results()):
        (tmp_path / f"paper_{results['experiment']}.json").write_text(json.dumps(results))
    return tmp_path


@pytest.fixture(scope="module")
def script():
    return import_module("experiments.report")


def test_pages_from_results_files_alone(script, folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["report.py", "--results", str(folder), "--output", str(folder)])
    script.main()
    index, web = (folder / "paper.md").read_text(), (folder / "paper.html").read_text()
    pages = {path.stem: path.read_text() for path in (folder / "paper").glob("*.md")}
    assert pages.keys() == {"center_of_mass", "positional_bias", "sensitivity", "cost"}
    assert all(f"[{name}](paper/{name}.md)" in index for name in pages)
    assert "4.5 min" in index  # 3 times 90 seconds
    points = pages["center_of_mass"]
    assert points.count("| -46% | -50% |") == 4
    assert points.count("| -57% | -20% |") == 4
    assert web.count("<td>-46%</td><td>-50%</td>") == 4
    assert [line.split(" | ")[0] for line in index.splitlines() if line.startswith("| ")][2:] == [
        *["| C1"] * 2, "| C2", *["| C5"] * 2, "| N1", "| aim"
    ]  # fmt: skip
    figures = [figure for page in pages.values() for figure in re.findall(r"!\[.*?\]\(\.\./(.*?)\)", page)]
    assert len(figures) == 4
    assert all((folder / figure).stat().st_size > 1000 and f'src="{figure}"' in web for figure in figures)


def test_verdicts_of_the_pages(script, folder):
    pages = script.build_pages(folder, folder)
    found = [
        (claim.id, judged.verdict)
        for sections in pages.values()
        for section in sections
        for claim, judged in zip(section.claims, section.judgements(), strict=True)
    ]
    # Three tests of C1, and one with equal parameters; each against the convolution (-50% for the paper's -46%) and
    # CoordConv (-20% for -57%).
    assert found[:8] == [("C1", "reproduced"), ("C1", "in part")] * 4
    assert found[8:] == [
        *[("C2", "in part"), ("N1", "measured"), ("C5", "reproduced"), ("C5", "reproduced"), ("aim", "aim met")]
    ]


def test_fewer_than_five_seeds_suggest_and_show_nothing(script, folder):
    results = points_results()
    results["runs"] = [run for run in results["runs"] if run["seed"] < 3]
    (folder / "paper_center_of_mass.json").write_text(json.dumps(results))
    section = script.build_pages(folder, folder)["center_of_mass"][0]
    assert {judged.verdict for judged in section.judgements()} == {"suggestive, n = 3"}


def test_a_section_needs_only_its_own_file(script, folder):
    (folder / "paper_positional_bias.json").unlink()
    pages = script.build_pages(folder, folder)
    assert {name: [section.title for section in sections] for name, sections in pages.items()} == {
        "center_of_mass": ["Centre of mass, 5 steps (C1)"],
        "cost": ["Parameters and time (C5)"],
    }


def test_each_results_file_has_a_section_with_figures_of_its_name(script, folder):
    normalised = numerals_results()
    normalised["settings"]["batch_norm"] = True
    (folder / "paper_positional_bias_normalised.json").write_text(json.dumps(normalised))
    sections = {section.title: section for section in script.build_pages(folder, folder)["positional_bias"]}
    assert "Positional bias (C2)" in sections
    section = sections["Positional bias, batch normalisation (C2)"]
    assert section.claims[0].setting.startswith("maximum head, batch normalisation;")
    pictures = [block.file for block in section.blocks if isinstance(block, Picture)]
    assert pictures == ["paper_positional_bias_normalised.png"]
    assert (folder / pictures[0]).stat().st_size > 1000


def test_no_results(script, tmp_path):
    with pytest.raises(DataError, match="no results"):
        script.build_pages(tmp_path, tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"format_version": 1, "experiment": "cost"}', '{"format_version": 2}'])
def test_damaged_results(tmp_path, text):
    (tmp_path / "paper_cost.json").write_text(text)
    with pytest.raises(DataError, match="paper_cost"):
        read_results(tmp_path / "paper_cost.json", "cost")


def test_bias_is_of_the_runs_that_learnt():
    results = numerals_results()
    failed = {**results["runs"][0], "seed": 5, "scores": dict.fromkeys(results["runs"][0]["scores"], 0.11)}
    results["runs"].append(failed)
    runs = positional_bias.compared(results)["convolution"]
    table = positional_bias.accuracy_table({"convolution": runs})
    row = dict(zip(table.header, table.rows[0], strict=True))
    assert (row["seeds"], row["learnt"], row["bias"]) == ("6", "5", "0.00")
    assert row["same places"].startswith("78.3%")  # (0.9 x (5 + 0.1) + 0.11) / 6


def test_a_region_never_shown_is_a_row_of_its_own():
    rows = center_of_mass.claim_rows(points_results())
    assert [row.setting.partition(";")[0] for row in rows] == [
        *["points everywhere"] * 4, *["seen region"] * 2, *["region never shown"] * 2
    ]  # fmt: skip
    assert [row.headline is not None for row in rows] == [True, True, False, False, *[True] * 4]


def test_rows_of_one_claim_share_a_line_of_the_first_page():
    def section(verdict, figures):
        headline = Headline("it works", "here", figures)
        return Section("T", "", "today", 1, [ClaimRow("C9", "it", "yes", figures, 7, "s", verdict, headline)])

    table = summary_table({"paper/a.md": [section("reproduced", "0.5"), section("in part", "0.9")]})
    assert table.rows == [
        ("C9", "it works", "yes", "here: 0.5 (n = 7); here: 0.9 (n = 7)", "**1 x reproduced; 1 x in part**",
         "[a](paper/a.md)"),
    ]  # fmt: skip


def test_rendering_escapes():
    section = Section("A < B", "run", "today", 1, blocks=[Table(("a|b",), [("`x` **y**",)]), Picture("f.png", 'a "b"')])
    page = markdown_sections("T", [section])
    web = html_page("T", [Paragraph("1 < 2, [a](b.md)")], [section])
    assert "a\\|b" in page
    assert "<code>x</code> <b>y</b>" in web
    assert "A &lt; B" in web
    assert '1 &lt; 2, <a href="b.md">a</a>' in web
    assert 'alt="a &quot;b&quot;"' in web


def test_format_interval():
    assert format_interval(Interval(0.5, 0.25, 0.75)) == "0.50 [0.25, 0.75]"
    assert format_interval(Interval(0.5, 0.25, 0.75), 1, percent=True) == "50.0% [25.0, 75.0]"
    assert format_interval(Interval(0.5, 0.4999, 0.5001)) == "0.50"
    assert format_interval(Interval(0.5, None, None)) == "0.50"
    assert format_interval(Interval(None, None, None)) == "-"
