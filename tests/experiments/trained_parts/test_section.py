from importlib import import_module
from pathlib import Path

import pytest
from experiments.results import read_results

RESULTS = Path(__file__).parents[3] / "docs" / "results"


@pytest.fixture(scope="module")
def script():
    return import_module("experiments.trained_parts.section")


def runs(**variants):
    return [
        {"variant": name, "seed": seed, "scores": dict.fromkeys(("64", "96", "128"), value)}
        for name, values in variants.items()
        for seed, value in enumerate(values)
    ]


def test_verdicts_are_of_paired_differences_corrected_for_all(script):
    found = runs(
        a=[0.60, 0.62, 0.64, 0.66, 0.68],
        lower=[0.70, 0.721, 0.74, 0.762, 0.78],
        same=[0.60, 0.63, 0.63, 0.67, 0.67],
        few=[0.70, 0.721, 0.74],
    )
    text = script.verdicts(found, {"that": [("a", "lower"), ("a", "same"), ("a", "few")], "none": []})
    assert text.splitlines() == [
        f"- At {size} px the loss of that is lower than that of lower, not shown to differ from that of same, not "
        "compared with that of few (suggestive, n = 3)."
        for size in (64, 96, 128)
    ]


def test_the_stored_page_is_made_of_the_stored_results(script):
    results = read_results(RESULTS / "trained_parts.json", "trained_parts")
    forms = read_results(RESULTS / "geometry_forms.json", "geometry_forms")
    assert script.page(results, forms) == (RESULTS / "trained_parts.md").read_text(encoding="utf-8")


def test_the_defaults_are_the_best_rates_of_the_sweeps():
    from geopos_diffusers.finetuning.part_options import LEARNING_RATES

    best = {
        name: arm["best_rate"]
        for name, arm in read_results(RESULTS / "trained_parts.json", "trained_parts")["variants"].items()
    }
    assert LEARNING_RATES["geoconv"] == best["geometry"]
    assert LEARNING_RATES["taps"] == best["taps"]
    assert LEARNING_RATES["bias"] == best["bias"]
    assert LEARNING_RATES["lora"] == best["LoRA attention r=4"]
