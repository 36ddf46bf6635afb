"""The page of a results file of ControlNets.

python -m scripts.experiments.controlnet_hands.section docs/results/controlnet_hands.json
"""

from pathlib import Path

from ..arms_page import arms_table, statements, sweeps_table, write_pages

REFERENCE = {"whole": "whole + geometry", "adapters": "geometry"}
MEASURES = {
    "loss": "loss ratio",
    "rendered hands_found": "hands found",
    "rendered joint_error": "joint error",
    "rendered joint_error_all": "joint error with misses",
    "photographs hands_found": "hands found (photographs)",
    "photographs joint_error": "joint error (photographs)",
    "photographs joint_error_all": "joint error with misses (photographs)",
}
COMPARED = ("loss", "rendered joint_error_all", "photographs joint_error_all")
TITLES = {"whole": "ControlNets of hands", "adapters": "Adapters of a ControlNet"}


def page(results: dict, file: Path) -> str:
    settings, runs, arms = results["settings"], results["runs"], results["variants"]
    stage = settings["stage"]
    measures = {key: name for key, name in MEASURES.items() if any(key in run["scores"] for run in runs)}
    compared = {key: measures[key] for key in COMPARED if key in measures and REFERENCE[stage] in arms}
    said = f"{statements(runs, arms, REFERENCE[stage], compared)}\n\n" if compared else ""
    return f"""# {TITLES[stage]}

{said}{ABOUT[stage].format(**settings)}{GEOMETRY if "whole + geometry" in arms else ""}
The joint error is the mean distance of the 21 joints that MediaPipe finds in a drawn image from where the condition has
them, as a share of the hand's size; "with misses" counts an image without a hand as 1. It is measured on
{settings["test_images"]} rendered test hands and, where it says so, under the skeletons of {settings["photographs"]}
photographs of other people's hands (sign-language digits, Mavi et al., arXiv 2011.08927, Apache-2.0), drawn in
{settings["sample_steps"]} steps with the same noise for all. Loss: denoising loss of the test hands as a ratio to that
of the model without training. Each arm has its own learning rate, by a sweep on {settings["test_images"] // 2}
validation hands with seed {settings["sweep_seed"]}, then {len(settings["seeds"])} other seeds. In brackets: 95%
intervals (Student's t over seeds). The statements are of paired differences, corrected by Holm's method.
{results["date"]}, one CPU core.

```bash
{results["command"]}
```

{arms_table(runs, arms, {key: (name, ".3f") for key, name in measures.items()})}

Validation loss by learning rate, as a ratio, one run each:

{sweeps_table(arms, "ratio by rate")}

![Conditions, and what is drawn under them from the same noise]({file.stem}.png)
"""


ABOUT = {
    "whole": """New ControlNets of the packaged 64 px model learn {train_images:,} rendered hands in the poses that it
knows, each with a picture of its skeleton, in {max_train_steps} steps of {batch_size}; half of the captions are left
out.""",
    "adapters": """A ControlNet that learnt skeletons gets pictures of depth instead: {train_images:,} rendered hands,
in {max_train_steps} steps of {batch_size}; half of the captions are left out. It stays as it is, and geometry weights,
biases of the same layers, or LoRA learn beside it.""",
}
GEOMETRY = """ "whole" trains the ControlNet, "whole + geometry" its geometry layers too."""


if __name__ == "__main__":
    write_pages(__doc__, "controlnet_hands", page)
