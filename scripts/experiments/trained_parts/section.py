"""The page docs/results/trained_parts.md, from the JSON files of the two benchmarks that it names.

python -m scripts.experiments.trained_parts.section --results docs/results
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

import numpy as np
from scipy.stats import t as student_t

from geopos_diffusers.files import write_text

SIZES = ("64", "96", "128")
LEAST_SEEDS = 5
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


def t_interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and 95% interval of Student's t over the seeds."""
    mean, count = float(np.mean(values)), len(values)
    reach = float(student_t.ppf(0.975, count - 1) * np.std(values, ddof=1) / count**0.5) if count > 1 else float("nan")
    return mean, mean - reach, mean + reach


def cell(values: list[float]) -> str:
    mean, low, high = t_interval(values)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def signed_cell(values: list[float]) -> str:
    mean, low, high = t_interval(values)
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"


def difference(arms: dict, first: str, second: str, size: str) -> list[float]:
    """Ratio of the first arm minus that of the second, for each seed that both have."""
    return [a - b for a, b in zip(arms[first]["ratio"][size], arms[second]["ratio"][size], strict=False)]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def verdict(arms: dict, first: str, second: str, size: str) -> str:
    """What the paired difference shows; fewer than five seeds only suggest it."""
    values = difference(arms, first, second, size)
    mean, low, high = t_interval(values)
    few = "" if len(values) >= LEAST_SEEDS else f" (suggestive, {len(values)} seeds)"
    if low <= 0 <= high:
        return f"not shown to differ from {second}{few}"
    return f"{'lower' if mean < 0 else 'higher'} than that of {second}{few}"


def differences_table(arms: dict, pairs: list[tuple[str, str]]) -> str:
    rows = [
        [f"{first} - {second}", *(signed_cell(difference(arms, first, second, size)) for size in SIZES)]
        for first, second in pairs
    ]
    return table(["paired difference of the ratios", *(f"{size} px" for size in SIZES)], rows)


def page(results: dict, forms: dict | None) -> str:
    arms = results["arms"]
    controls = [name for name in CONTROLS if name in arms]
    pairs = [(REFERENCE, name) for name in controls]
    joint = "LoRA attention r=4 + geometry"
    beside = [name for name in ("LoRA attention r=4", "LoRA attention r=4 + bias") if name in arms and joint in arms]
    pairs += [(joint, name) for name in beside]
    measured = [
        [
            name,
            f"{arm['parameters']:,}",
            f"{arm['best_rate']:g}{'' if arm['bracketed'] else ' (not bracketed)'}",
            str(len(arm["ratio"]["64"])),
            *(cell(arm["ratio"][size]) for size in SIZES),
        ]
        for name, arm in arms.items()
    ]
    rates = sorted({float(rate) for arm in arms.values() for rate in arm["sweep"]})
    swept = [
        [name, *(f"{arm['sweep'][f'{rate:g}']:.3f}" if f"{rate:g}" in arm["sweep"] else "" for rate in rates)]
        for name, arm in arms.items()
    ]
    said = [
        f"- At {size} px the loss of the geometry weights is "
        f"{', '.join(verdict(arms, REFERENCE, name, size) for name in controls)}."
        for size in SIZES
    ]
    for size in SIZES if beside else ():
        said.append(
            f"- At {size} px the loss of LoRA with geometry is "
            f"{', '.join(verdict(arms, joint, name, size) for name in beside)}."
        )
    verdicts = "\n".join(said)
    text = f"""# What is worth training

{verdicts}

The packaged model is fine-tuned on rendered hands in free poses, seen from all sides, which it does not know
({results["train_images"]:,} images, {results["steps"]} steps of 16, cosine schedule, AdamW). The figure is the
denoising loss on new images as a ratio to that of the base model on the same images, noise and timesteps; below 1 is
better. Each arm has its own best learning rate, chosen on {results["test_images"] // 2} validation images with seed
{results["sweep_seed"]}; a grid grows until the best rate has a worse one on both sides. Then each arm is trained with
up to {len(results["seeds"])} other seeds, which all arms share, and measured on {results["test_images"]} test images at
64 px and {results["test_images"] // 2} at 96 and 128 px. In brackets: 95% intervals (Student's t over the seeds).
They say what other seeds would give on the same images. {results["date"]}, two CPU cores.

```bash
python -m scripts.experiments.trained_parts.run --work runs/trained_parts --output docs/results/trained_parts.json \\
    --arms {shlex.join(arms)}
{command_of_forms(forms)}python -m scripts.experiments.trained_parts.section --results docs/results
```

{table(["trained", "parameters", "best rate", "seeds", *(f"{size} px" for size in SIZES)], measured)}

All arms are trained at 64 px. "geometry" is `--train geoconv`: a + b x + c y + d x y for each filter of the 28
convolutions of 3x3. "bias" is its first coefficient alone (`--train bias`), the cheapest control. "taps" is the kernel
over the product channel, as in the paper. "LoRA attention" factors the attention projections. In a joint arm the LoRA
factors have the best rate of LoRA alone and the other part's rate is swept. Of the fall of the loss at 64 px that the
geometry reaches, the biases alone reach {100 * bias_share(arms):.0f}%.

{differences_table(arms, pairs)}

## The sweeps

Loss ratio on the validation images by peak learning rate, one run each.

{table(["trained", *(f"{rate:g}" for rate in rates)], swept)}

![Loss ratio by learning rate](trained_parts.png)
"""
    return text + (forms_section(forms) if forms else "")


def bias_share(arms: dict, size: str = "64") -> float:
    """The share of the geometry's gain over the base model that biases alone have."""
    gains = [1 - float(np.mean(arms[name]["ratio"][size])) for name in ("bias", REFERENCE)]
    return gains[0] / gains[1]


def command_of_forms(forms: dict | None) -> str:
    if forms is None:
        return ""
    files = "--work runs/trained_parts --output docs/results/geometry_forms.json"
    which = f"--seeds {len(forms['seeds'])} --forms {shlex.join(forms['forms'])}"
    return f"python -m scripts.experiments.geometry_forms.run {files} \\\n    {which}\n"


def forms_section(forms: dict) -> str:
    rows = [
        [
            name,
            f"{form['parameters']:,}",
            f"{form['best_rate']:g}",
            cell(form["ratio"]),
            signed_cell([a - b for a, b in zip(form["ratio"], forms["forms"]["multilinear"]["ratio"], strict=True)]),
            ", ".join(f"{rate}: {ratio:.3f}" for rate, ratio in form["sweep"].items()),
        ]
        for name, form in forms["forms"].items()
    ]
    head = ["form", "parameters", "best rate", "64 px", "minus multilinear", "validation, by rate"]
    descriptions = "\n".join(f"- *{name}*: {text}" for name, text in FORMS.items() if name in forms["forms"])
    return f"""
## Other forms of the geometry term

{forms["steps"]} steps, {len(forms["seeds"])} seeds (suggestive, not conclusive), no moving average, otherwise as
above; the rate of each is the best of three. Only the shift and the layers are options of the package. {forms["date"]}.

{table(head, rows)}

{descriptions}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", required=True, help="folder of the JSON files, and of the page")
    args = parser.parse_args()
    folder = Path(args.results)
    results = json.loads((folder / "trained_parts.json").read_text(encoding="utf-8"))
    file = folder / "geometry_forms.json"
    forms = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    write_text(folder / "trained_parts.md", page(results, forms))


if __name__ == "__main__":
    sys.exit(main())
