"""The page of a results file."""

from experiments.results import write_results
from experiments.text_to_image_photographs.section import page

SETTINGS = {"max_train_steps": 200, "batch_size": 16, "num_samples": 128, "sample_steps": 15, "seeds": [*range(5)]}


def test_the_page_says_which_differences_are_shown(tmp_path):
    arm = {"options": "", "parameters": 1234, "sweep": {"0.1": 0.5}, "best_rate": 0.1, "bracketed": True}
    runs = [{"variant": "photographs", "seed": 0, "scores": {"hands_found": 0.98}}]
    runs += [
        {
            "variant": name,
            "seed": seed,
            "scores": {"loss": loss + 0.001 * seed, "kid": 0.2 + shift * seed, "frechet": 9.0, "hands_found": 0.5},
        }
        for name, loss, shift in (("geometry", 0.5, 0.01), ("bias", 0.7, -0.01))
        for seed in range(5)
    ]
    results = write_results(
        tmp_path / "r.json",
        "text_to_image_photographs",
        runs,
        {**SETTINGS, "sweep_seed": 100},
        images={"train": 1075, "validation": 161, "test": 407},
        variants=dict.fromkeys(("geometry", "bias"), arm),
    )
    text = page(results, tmp_path / "r.json")
    first, second = text.splitlines()[2:4]
    assert "lower than that of bias" in first
    assert "not shown to differ" in second
    assert "| photographs |  |  |  |  |  | 0.980 |" in text
    assert "| geometry | 1,234 | 0.1 | 0.5020 [0.5000, 0.5040] |" in text
    assert "r.png" in text
    assert "{" not in text
