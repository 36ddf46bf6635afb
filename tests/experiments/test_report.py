import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
from experiments.center_of_mass import section as center_of_mass
from experiments.page import (
    Paragraph,
    Picture,
    Section,
    Table,
    format_interval,
    render_html,
    render_markdown,
)
from experiments.positional_bias import section as positional_bias
from experiments.results import geometry, ratio_interval, read_results, scores, select

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.bootstrap import Interval

REPOSITORY = Path(__file__).parents[2]
HEAD = {"format_version": 1, "command": "python x.py --a b", "date": "2020-02-02", "cpu_seconds": 90.0}
DENSITIES = ("sparse", "dense", "all")


def run(kind, seed, data, head, widths, value, tests, **options):
    record = {"data": data, "head": head, "kind": kind, "seed": seed, "widths": widths, "parameters": 100 + widths[-1]}
    return record | options | {"scores": {test: value * factor * (1 + 0.01 * seed) for test, factor in tests.items()}}


def points_results():
    """GeoConv's loss is 0.5 of the convolution's and 0.8 of CoordConv's; 10 times both in the region never shown."""
    tests = {f"{d}/{r}": 1 for d in DENSITIES for r in ("everywhere", "three_quarters")}
    tests |= {f"{d}/fourth_quarter": 10 for d in DENSITIES}
    runs = []
    for data in ("all/everywhere", "all/three_quarters", "sparse/everywhere"):
        for widths, seeds in (([4, 8], 3), ([4, 9], 3), ([4], 1)):
            for seed in range(seeds):
                runs.append(run("conv", seed, data, "average", widths, 0.01, tests))
                runs.append(run("geo", seed, data, "average", widths, 0.005, tests, **options()))
                if widths != [4, 9]:
                    runs.append(run("coord", seed, data, "average", widths, 0.00625, tests))
    settings = {
        "size": 32, "widths": [4, 8], "shallow_widths": [4], "steps": 5, "batch_size": 2, "map_seeds": 1,
        "sweep_shifts": [0.0, 0.25],
    }  # fmt: skip
    chosen = {data: {"encoding": "product", "shift_range": 0.0} for data in ("all/everywhere", "all/three_quarters")}
    more = {"experiment": "center_of_mass", "head": "average", "chosen_on_validation": chosen}
    return HEAD | more | {"settings": settings, "runs": runs}


def numerals_results():
    """Bias of 0.9 for CoordConv, 0.5 for the default GeoConv and none for the convolution."""
    swapped = {"conv": 1.0, "coord": 0.0, "cartesian": 0.2, 0.0: 0.1, 0.25: 4 / 9}
    runs = []
    for data, head in (("tied", "maximum"), ("everywhere", "maximum"), ("tied", "average"), ("tied", "flatten")):
        for seed in range(2):
            for name, factor in swapped.items():
                tests = {"validation": 1, "tied": 1, "swapped": factor, "everywhere": 0.5, "outside": 0.5}
                kind = name if name in ("conv", "coord") else "geo"
                change = {"encoding": name, "shift_range": 0.25} if name == "cartesian" else {"shift_range": name}
                runs.append(
                    run(kind, seed, data, head, [4, 8], 0.9, tests, **(options(**change) if kind == "geo" else {}))
                )
    settings = {"size": 56, "widths": [4, 8], "steps": 5, "batch_size": 2, "map_seeds": 1, "sweep_shifts": [0.0, 0.25]}
    return HEAD | {"experiment": "positional_bias", "head": "maximum", "settings": settings, "runs": runs}


def options(**changes):
    return {name: value for name, value in geometry(**{"shift_range": 0.0, **changes}).items() if name != "kind"}


def cost_results():
    variants = {
        name: {"parameters": parameters, "seconds": 0.001 * ratio, "ratio": ratio, "low": ratio, "high": ratio}
        for name, parameters, ratio in (("conv", 100, 1.0), ("geo", 208, 1.02), ("coord", 316, 1.1))
    }
    variants["coord-concat"] = variants["coord"]
    network = {"name": "tiny", "widths": [4, 8], "size": 32, "batch": 2, "kernel_taps": 108, "variants": variants}
    return HEAD | {"experiment": "cost", "networks": [network]}


@pytest.fixture
def folder(tmp_path):
    for results in (points_results(), numerals_results(), cost_results()):
        (tmp_path / f"paper_{results['experiment']}.json").write_text(json.dumps(results))
    return tmp_path


@pytest.fixture(scope="module")
def script():
    return import_module("experiments.report")


def test_page_from_results_files_alone(script, folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["paper_report.py", "--results", str(folder), "--output", str(folder)])
    script.main()
    page, web = (folder / "paper.md").read_text(), (folder / "paper.html").read_text()
    for text in (page, web):
        assert "GeoConv against convolution" in text
        assert "4.5 min" in text  # 3 times 90 seconds
    assert page.count("| -46% | -50% |") == 4
    assert page.count("| -57% | -20% |") == 4
    assert web.count("<td>-46%</td><td>-50%</td>") == 4
    figures = [line.split("](")[1].split(")")[0] for line in page.splitlines() if line.startswith("![")]
    assert len(figures) == 4
    assert all((folder / figure).stat().st_size > 1000 and f'src="{figure}"' in web for figure in figures)


def test_verdicts_of_the_page(script, folder):
    claims = [claim for section in script.build_sections(folder, folder) for claim in section.claims]
    found = [(claim.id, claim.verdict) for claim in claims]
    # Three tests of C1, and one with equal parameters; each against the convolution (-50% for the paper's -46%) and
    # CoordConv (-20% for -57%).
    assert found[:8] == [("C1", "reproduced"), ("C1", "in part")] * 4
    assert found[8:] == [("C2", "in part"), ("N1", "measured"), ("C5", "reproduced"), ("C5", "reproduced")]


def test_a_section_needs_only_its_own_file(script, folder):
    (folder / "paper_positional_bias.json").unlink()
    assert [section.title for section in script.build_sections(folder, folder)] == [
        "Centre of mass, 5 steps (C1)",
        "Parameters and time (C5)",
    ]


def test_each_results_file_has_a_section_with_figures_of_its_name(script, folder):
    normalised = numerals_results()
    normalised["settings"]["batch_norm"] = True
    (folder / "paper_positional_bias_normalised.json").write_text(json.dumps(normalised))
    sections = {section.title: section for section in script.build_sections(folder, folder)}
    assert "Positional bias (C2)" in sections
    section = sections["Positional bias, batch normalisation (C2)"]
    assert section.claims[0].setting.startswith("maximum head, batch normalisation;")
    pictures = [block.file for block in section.blocks if isinstance(block, Picture)]
    assert pictures == ["paper_positional_bias_normalised.png"]
    assert (folder / pictures[0]).stat().st_size > 1000


def test_no_results(script, tmp_path):
    with pytest.raises(DataError, match="no results"):
        script.build_sections(tmp_path, tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"format_version": 2, "experiment": "cost"}', '{"format_version": 1}'])
def test_damaged_results(tmp_path, text):
    (tmp_path / "paper_cost.json").write_text(text)
    with pytest.raises(DataError, match="paper_cost"):
        read_results(tmp_path / "paper_cost.json", "cost")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.4, 0.6, "reproduced"), (0.3, 0.4, "reproduced"), (0.6, 0.9, "in part"), (0.4, 1.0, "not reproduced")],
)
def test_center_of_mass_verdict(low, high, expected):
    assert center_of_mass.verdict(Interval((low + high) / 2, low, high), 0.46) == expected


@pytest.mark.parametrize(
    ("coord", "geo", "expected"),
    [
        ((0.8, 0.9), (-0.02, 0.05), "reproduced"),
        ((0.8, 0.9), (0.3, 0.5), "in part"),
        ((0.8, 0.9), (0.7, 0.85), "not reproduced"),
        ((0.0, 0.1), (-0.1, -0.05), "not reproduced"),  # CoordConv is not biased, so there is nothing to avoid
    ],
)
def test_positional_bias_verdict(coord, geo, expected):
    intervals = (Interval(sum(ends) / 2, *ends) for ends in (coord, geo))
    assert positional_bias.verdict(*intervals) == expected


def test_bias_is_of_the_runs_that_learnt():
    results = numerals_results()
    failed = {**results["runs"][0], "seed": 2, "scores": dict.fromkeys(results["runs"][0]["scores"], 0.11)}
    results["runs"].append(failed)
    runs = positional_bias.compared(results)["convolution"]
    table = positional_bias.accuracy_table({"convolution": runs})
    row = dict(zip(table.header, table.rows[0], strict=True))
    assert (row["seeds"], row["learnt"], row["bias"]) == ("3", "2", "0.00")
    assert row["same places"].startswith("64.0%")  # (0.9 + 0.909 + 0.11) / 3


def test_ratio_is_over_shared_seeds_in_pairs():
    first = [{"seed": seed, "scores": {"test": seed + 1.0}} for seed in range(5)]
    second = [{"seed": seed, "scores": {"test": 2 * (seed + 1.0)}} for seed in range(4)]
    ratio = ratio_interval(first, second, "test")
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.5, 0.5, 0.5))


def test_runs_that_differ_in_more_than_the_seed_are_not_mixed():
    runs = [{"seed": 0, "kind": kind, "scores": {"test": 1.0}} for kind in ("conv", "geo")]
    with pytest.raises(DataError, match="2 runs share 1 seeds"):
        scores(runs, "test")
    assert scores(select(runs, kind="geo"), "test") == {0: 1.0}


def test_rendering_escapes():
    section = Section("A < B", "run", "today", 1, blocks=[Table(("a|b",), [("`x` **y**",)]), Picture("f.png", 'a "b"')])
    page = render_markdown("T", [Paragraph("p")], [section])
    web = render_html("T", [Paragraph("1 < 2")], [section])
    assert "a\\|b" in page
    assert "<code>x</code> <b>y</b>" in web
    assert "A &lt; B" in web
    assert "1 &lt; 2" in web
    assert 'alt="a &quot;b&quot;"' in web


def test_format_interval():
    assert format_interval(Interval(0.5, 0.25, 0.75)) == "0.50 [0.25, 0.75]"
    assert format_interval(Interval(0.5, 0.25, 0.75), 1, percent=True) == "50.0% [25.0, 75.0]"
    assert format_interval(Interval(0.5, 0.4999, 0.5001)) == "0.50"
    assert format_interval(Interval(None, None, None)) == "-"
