"""The page of a results file of ControlNets."""

import pytest
from experiments.controlnet_hands.section import page
from experiments.results import write_results

SETTINGS = {"max_train_steps": 80, "batch_size": 16, "train_images": 1500, "test_images": 96, "sample_steps": 12}


@pytest.mark.parametrize(
    ("stage", "arms"), [("whole", ("whole + geometry", "whole")), ("adapters", ("geometry", "bias"))]
)
def test_the_page_says_which_difference_is_shown(tmp_path, stage, arms):
    arm = {"options": "", "parameters": 1234, "sweep": {"0.1": 0.5}, "best_rate": 0.1, "bracketed": True}
    runs = [{"variant": "the images themselves", "seed": 0, "scores": {"rendered joint_error_all": 0.05}}]
    for name, base in zip(arms, (0.3, 0.2), strict=True):
        for seed in range(5):
            scores = {"loss": 0.9, "rendered joint_error_all": base + 0.001 * seed, "rendered hands_found": 0.5}
            runs.append({"variant": name, "seed": seed, "scores": scores})
    settings = {**SETTINGS, "stage": stage, "seeds": [0, 1, 2, 3, 4], "sweep_seed": 100, "photographs": 80}
    results = write_results(tmp_path / "r.json", "controlnet_hands", runs, settings, variants=dict.fromkeys(arms, arm))
    text = page(results, tmp_path / "r.json")
    assert f"- Joint error with misses of {arms[0]}: higher than that of {arms[1]}." in text
    assert f"- Loss ratio of {arms[0]}: not shown to differ from that of {arms[1]}." in text
    assert "| the images themselves |  |  |  |  | 0.050 |" in text
    assert f"| {arms[0]} | 1,234 | 0.1 | 0.900 [0.900, 0.900] |" in text
    assert "{" not in text
