"""The page docs/results/trained_parts.md, from the JSON files of the two benchmarks that it names.

python -m scripts.experiments.trained_parts.section --results docs/results
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from geopos_diffusers.files import write_text

from ..arms_page import difference, estimate_cell, rate_cell
from ..page import markdown_table
from ..results import Run, mean_score, read_results, select
from ..statistics import Estimate
from ..verdict import comparison_texts

SIZES = ("64", "96", "128")
FORMS = {
    "no shift": "`--shift_range 0`, coordinates that never move (the default moves them by up to 0.25 in training).",
    "preconditioned taps": "kernel taps, moved along the polynomials that they stand for, so that the file holds taps.",
    "a scale for each layer": "the multilinear basis, with rates in proportion to the RMS of each layer's output.",
    "squares added": "x^2 and y^2 beside 1, x, y, xy.",
    "one-tap convolutions too": "`--target_modules '.*'` patches the 1x1 convolutions as well.",
    "linear layers too": "the four terms also at the output of every linear layer over image tokens.",
}
REFERENCE = "geometry"
CONTROLS = ("bias", "LoRA attention r=2", "LoRA attention r=4", "taps")


def signed_cell(estimate: Estimate) -> str:
    return estimate_cell(estimate, "+.4f")


def verdicts(runs: Sequence[Run], groups: dict[str, list[tuple[str, str]]]) -> str:
    """What the paired differences show, a line for each size and group of comparisons; Holm's correction is for all.

    Args:
        groups: pairs of variants, by what their first one is called.
    """
    lines = [(size, name, compared) for name, compared in groups.items() for size in SIZES if compared]
    flat = [(first, second, size) for size, _, compared in lines for first, second in compared]
    texts = comparison_texts([difference(runs, *entry) for entry in flat], [second for _, second, _ in flat])
    said = []
    for size, name, compared in lines:
        said.append(f"- At {size} px the loss of {name} is {', '.join(texts[: len(compared)])}.")
        texts = texts[len(compared) :]
    return "\n".join(said)


def differences_table(runs: Sequence[Run], compared: list[tuple[str, str]]) -> str:
    rows = [
        [f"{first} - {second}", *(signed_cell(difference(runs, first, second, size)) for size in SIZES)]
        for first, second in compared
    ]
    return markdown_table(["paired difference of the ratios", *(f"{size} px" for size in SIZES)], rows)


def page(results: dict, forms: dict | None) -> str:
    runs, arms, settings = results["runs"], results["variants"], results["settings"]
    joint = "LoRA attention r=4 + geometry"
    controls = [(REFERENCE, name) for name in CONTROLS if name in arms]
    beside = [(joint, name) for name in ("LoRA attention r=4", "LoRA attention r=4 + bias") if {joint, name} <= {*arms}]
    measured = []
    for name, arm in arms.items():
        own = select(runs, variant=name)
        cells = [estimate_cell(mean_score(own, size)) for size in SIZES]
        measured.append([name, f"{arm['parameters']:,}", rate_cell(arm), str(len(own)), *cells])
    rates = sorted({float(rate) for arm in arms.values() for rate in arm["sweep"]})
    swept = [
        [name, *(f"{arm['sweep'][f'{rate:g}']:.3f}" if f"{rate:g}" in arm["sweep"] else "" for rate in rates)]
        for name, arm in arms.items()
    ]
    text = f"""# What is worth training

{verdicts(runs, {"the geometry weights": controls, "LoRA with geometry": beside})}

The packaged model is fine-tuned on rendered hands in free poses, seen from all sides, which it does not know
({settings["train_images"]:,} images, {settings["steps"]} steps of 16, cosine schedule, AdamW). The figure is the
denoising loss on new images as a ratio to that of the base model on the same images, noise and timesteps; below 1 is
better. Each arm has its own best learning rate, chosen on {settings["test_images"] // 2} validation images with seed
{settings["sweep_seed"]}; a grid grows until the best rate has a worse one on both sides. Then each arm is trained with
up to {len(settings["seeds"])} other seeds, which all arms share, and measured on {settings["test_images"]} test images
at 64 px and {settings["test_images"] // 2} at 96 and 128 px. In brackets: 95% intervals (Student's t over the seeds).
They say what other seeds would give on the same images. The statements above are of paired differences with p values
below 0.05, corrected by Holm's method for their number. {results["date"]}, two CPU cores.

```bash
python -m scripts.experiments.trained_parts.run --output runs/trained_parts --results docs/results/trained_parts.json \\
    --arms {shlex.join(arms)}
{command_of_forms(forms)}python -m scripts.experiments.trained_parts.section --results docs/results
```

{markdown_table(["trained", "parameters", "best rate", "seeds", *(f"{size} px" for size in SIZES)], measured)}

All arms are trained at 64 px. "geometry" is `--train geoconv`: a + b x + c y + d x y for each filter of the 28
convolutions of 3x3. "bias" is its first coefficient alone (`--train bias`), the cheapest control. "taps" is the kernel
over the product channel, as in the paper. "LoRA attention" factors the attention projections. In a joint arm the LoRA
factors have the best rate of LoRA alone and the other part's rate is swept. Of the fall of the loss at 64 px that the
geometry reaches, the biases alone reach {100 * bias_share(runs):.0f}%.

{differences_table(runs, controls + beside)}

## The sweeps

Loss ratio on the validation images by peak learning rate, one run each.

{markdown_table(["trained", *(f"{rate:g}" for rate in rates)], swept)}

![Loss ratio by learning rate](trained_parts.png)
"""
    return text + (forms_section(forms) if forms else "")


def bias_share(runs: Sequence[Run], size: str = "64") -> float:
    """The share of the geometry's gain over the base model that biases alone have."""
    biases, geometry = (
        1 - fmean(run["scores"][size] for run in select(runs, variant=name)) for name in ("bias", REFERENCE)
    )
    return biases / geometry


def command_of_forms(forms: dict | None) -> str:
    if forms is None:
        return ""
    files = "--output runs/trained_parts --results docs/results/geometry_forms.json"
    which = f"--num-seeds {len(forms['settings']['seeds'])} --forms {shlex.join(forms['variants'])}"
    return f"python -m scripts.experiments.geometry_forms.run {files} \\\n    {which}\n"


def forms_section(forms: dict) -> str:
    settings, runs = forms["settings"], forms["runs"]
    rows = [
        [
            name,
            f"{form['parameters']:,}",
            f"{form['best_rate']:g}",
            estimate_cell(mean_score(select(runs, variant=name), "64")),
            signed_cell(difference(runs, name, "multilinear", "64")),
            ", ".join(f"{rate}: {ratio:.3f}" for rate, ratio in form["sweep"].items()),
        ]
        for name, form in forms["variants"].items()
    ]
    head = ["form", "parameters", "best rate", "64 px", "minus multilinear", "validation, by rate"]
    descriptions = "\n".join(f"- *{name}*: {text}" for name, text in FORMS.items() if name in forms["variants"])
    return f"""
## Other forms of the geometry term

{settings["steps"]} steps, {len(settings["seeds"])} seeds (suggestive, not conclusive), no moving average, otherwise as
above; the rate of each is the best of three. Only the shift and the layers are options of the package. {forms["date"]}.

{markdown_table(head, rows)}

{descriptions}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", required=True, help="folder of the JSON files, and of the page")
    args = parser.parse_args()
    folder = Path(args.results)
    results = read_results(folder / "trained_parts.json", "trained_parts")
    file = folder / "geometry_forms.json"
    forms = read_results(file, "geometry_forms") if file.is_file() else None
    write_text(folder / "trained_parts.md", page(results, forms))


if __name__ == "__main__":
    sys.exit(main())
