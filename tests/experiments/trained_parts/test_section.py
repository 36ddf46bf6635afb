import json
import math
from importlib import import_module
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[3] / "docs" / "results"


@pytest.fixture(scope="module")
def script():
    return import_module("experiments.trained_parts.section")


def arms(first: list[float], second: list[float]) -> dict:
    return {
        "a": {"ratio": {"64": first}},
        "b": {"ratio": {"64": second}},
    }


def test_t_interval_of_five_seeds(script):
    """Student's t with four degrees of freedom is 2.776 at 97.5%."""
    mean, low, high = script.t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    reach = 2.7764451 * math.sqrt(2.5 / 5)
    assert (mean, low, high) == pytest.approx((3.0, 3.0 - reach, 3.0 + reach))


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ([0.60, 0.61, 0.60, 0.61, 0.60], [0.62, 0.63, 0.62, 0.63, 0.63], "lower than that of b"),
        ([0.64, 0.65, 0.64, 0.65, 0.64], [0.62, 0.63, 0.62, 0.63, 0.63], "higher than that of b"),
        ([0.60, 0.64, 0.60, 0.64, 0.62], [0.62, 0.62, 0.62, 0.62, 0.62], "not shown to differ from b"),
        ([0.60, 0.61, 0.60, 0.61, 0.60], [0.62, 0.63, 0.62], "lower than that of b (suggestive, 3 seeds)"),
    ],
)
def test_verdicts(script, first, second, said):
    assert script.verdict(arms(first, second), "a", "b", "64") == said


def test_the_stored_page_is_made_of_the_stored_results(script):
    results = json.loads((RESULTS / "trained_parts.json").read_text(encoding="utf-8"))
    forms = json.loads((RESULTS / "geometry_forms.json").read_text(encoding="utf-8"))
    assert script.page(results, forms) == (RESULTS / "trained_parts.md").read_text(encoding="utf-8")


def test_figures_of_the_readme_stand_on_the_page():
    readme = (RESULTS.parents[1] / "README.md").read_text(encoding="utf-8")
    table = readme.split("| trained | parameters | 64 px (trained) | 128 px |")[1].split("\n\n")[0]
    rows = [line.split(" | ")[1:] for line in table.strip().splitlines()[1:]]
    page = (RESULTS / "trained_parts.md").read_text(encoding="utf-8")
    figures = [cell.strip(" |") for row in rows for cell in row]
    assert len(figures) == 18
    assert [figure for figure in figures if figure not in page] == []


def test_the_defaults_are_the_best_rates_of_the_sweeps():
    from geopos_diffusers.finetuning.arguments import LEARNING_RATES

    best = {
        name: arm["best_rate"]
        for name, arm in json.loads((RESULTS / "trained_parts.json").read_text(encoding="utf-8"))["arms"].items()
    }
    assert LEARNING_RATES["geoconv"] == best["geometry"]
    assert LEARNING_RATES["taps"] == best["taps"]
    assert LEARNING_RATES["bias"] == best["bias"]
    assert LEARNING_RATES["lora"] == best["LoRA attention r=4"]
