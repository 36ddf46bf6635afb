"""The page of a results file of ControlNets.

python -m scripts.experiments.controlnet_hands.section docs/results/controlnet_hands.json
"""

import argparse
import sys
from pathlib import Path

from geopos_diffusers.files import write_text

from ..page import markdown_table
from ..results import mean_score, pairs, read_results, select
from ..statistics import Estimate, difference_estimate
from ..verdict import comparison_texts

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


def cell(estimate: Estimate) -> str:
    """ "0.600 [0.597, 0.604]"; the value alone of a single seed; nothing without one."""
    if estimate.value is None:
        return ""
    ends = "" if estimate.low is None else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.value:.3f}{ends}"


def page(results: dict, file: Path) -> str:
    settings, runs, arms = results["settings"], results["runs"], results["variants"]
    stage = settings["stage"]
    reference = REFERENCE[stage]
    measures = [name for name in MEASURES if any(name in run["scores"] for run in runs)]
    compared = [
        (
            measure,
            name,
            difference_estimate(*pairs(select(runs, variant=reference), select(runs, variant=name), measure)),
        )
        for measure in COMPARED
        if measure in measures
        for name in arms
        if name != reference
    ]
    texts = comparison_texts([estimate for _, _, estimate in compared], [name for _, name, _ in compared])
    said = "\n".join(
        f"- {MEASURES[measure].capitalize()} of {reference}: {text}."
        for (measure, _, _), text in zip(compared, texts, strict=True)
    )
    rows = []
    for name in dict.fromkeys(run["variant"] for run in runs):
        arm, own = arms.get(name), select(runs, variant=name)
        known = [f"{arm['parameters']:,}", rate(arm)] if arm else ["", ""]
        values = [cell(mean_score([run for run in own if measure in run["scores"]], measure)) for measure in measures]
        rows.append([name, *known, *values])
    swept = [
        [name, ", ".join(f"{key}: {value:.3f}" for key, value in arm["sweep"].items())] for name, arm in arms.items()
    ]
    head = ["arm", "trained parameters", "best rate", *(MEASURES[measure] for measure in measures)]
    return f"""# {TITLES[stage]}

{said}

{ABOUT[stage].format(**settings)}
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

{markdown_table(head, rows)}

Validation loss by learning rate, as a ratio, one run each:

{markdown_table(["arm", "ratio by rate"], swept)}

![Conditions, and what is drawn under them from the same noise]({file.stem}.png)
"""


def rate(arm: dict) -> str:
    return f"{arm['best_rate']:g}{'' if arm['bracketed'] else ' (not bracketed)'}"


ABOUT = {
    "whole": """New ControlNets of the packaged 64 px model learn {train_images:,} rendered hands in the poses that it
knows, each with a picture of its skeleton, in {max_train_steps} steps of {batch_size}; half of the captions are left
out. "whole" trains the ControlNet, "whole + geometry" its geometry layers too.""",
    "adapters": """A ControlNet that learnt skeletons gets pictures of depth instead: {train_images:,} rendered hands,
in {max_train_steps} steps of {batch_size}; half of the captions are left out. It stays as it is, and geometry weights,
biases of the same layers, or LoRA learn beside it.""",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="results files; each gets its page beside it")
    for file in parser.parse_args().results:
        write_text(file.with_suffix(".md"), page(read_results(file, "controlnet_hands"), file))


if __name__ == "__main__":
    sys.exit(main())
