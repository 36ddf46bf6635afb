"""The page of an unconditional experiment's results file.

python -m scripts.experiments.unconditional.section docs/results/unconditional_hands.json
"""

import argparse
import sys
from pathlib import Path

from geopos_diffusers.files import write_text

from ..page import markdown_table
from ..results import mean_score, pairs, read_results, select
from ..statistics import Estimate, difference_estimate
from ..verdict import comparison_texts

REFERENCE = {"hands": "geometry", "faces": "GeoConv"}
MEASURES = {"loss": ".4f", "kid": ".4f", "frechet": ".2f"}


def cell(estimate: Estimate, style: str) -> str:
    """ "0.600 [0.597, 0.604]"; the value alone of a single seed."""
    ends = "" if estimate.low is None else f" [{estimate.low:{style}}, {estimate.high:{style}}]"
    return f"{estimate.value:{style}}{ends}"


def page(results: dict, file: Path) -> str:
    settings, runs, arms = results["settings"], results["runs"], results["variants"]
    subject = settings["subject"]
    reference = REFERENCE[subject]
    others = [name for name in arms if name != reference]
    compared = [
        (
            measure,
            other,
            difference_estimate(*pairs(select(runs, variant=reference), select(runs, variant=other), measure)),
        )
        for measure in MEASURES
        for other in others
    ]
    texts = comparison_texts([estimate for _, _, estimate in compared], [other for _, other, _ in compared])
    named = {"loss": "denoising loss", "kid": "kernel distance", "frechet": "Fréchet distance"}
    said = "\n".join(
        f"- {named[measure].capitalize()} of {reference}: {text}."
        for (measure, _, _), text in zip(compared, texts, strict=True)
    )
    rows = [
        [
            name,
            "" if name == "base" else f"{arms[name]['parameters']:,}",
            "" if name == "base" else rate(arms[name]),
            *(cell(mean_score(select(runs, variant=name), measure), style) for measure, style in MEASURES.items()),
        ]
        for name in dict.fromkeys(run["variant"] for run in runs)
    ]
    swept = [
        [name, ", ".join(f"{key}: {value:.4f}" for key, value in arm["sweep"].items())] for name, arm in arms.items()
    ]
    what = ABOUT[subject].format(**settings, **{f"{name}_count": count for name, count in results["images"].items()})
    ratio = ", as a ratio to that of the base" if subject == "hands" else ""
    picture = f"\n![Images of each arm, from the same noise]({file.stem}.png)\n" if subject == "hands" else ""
    return f"""# Diffusion of pixels: {subject}

{said}

{what}
Each arm has its own learning rate, by a sweep on {results["images"]["validation"]} validation images with seed
{settings["sweep_seed"]}; then {len(settings["seeds"])} other seeds are trained and measured on
{results["images"]["test"]} test images. Loss: denoising loss on these, with the same noise for all{ratio}. Distances:
of {settings["num_samples"]} images drawn in {settings["sample_steps"]} DDIM steps to the test images, in MobileNetV2's
features; smaller is better. In brackets: 95% intervals (Student's t over seeds). The statements are of paired
differences, corrected by Holm's method. {results["date"]}, one CPU core.

```bash
{results["command"]}
```

{markdown_table(["arm", "trained parameters", "best rate", "loss", "kernel distance", "Fréchet distance"], rows)}

Validation loss by learning rate{ratio}, one run each:

{markdown_table(["arm", "loss by rate"], swept)}
{picture}"""


def rate(arm: dict) -> str:
    return f"{arm['best_rate']:g}{'' if arm['bracketed'] else ' (not bracketed)'}"


ABOUT = {
    "hands": """A UNet2DModel of 1.8 million weights learnt {base_images:,} rendered hands of 32 px from random weights
in {base_steps:,} steps of {batch_size}. It is adapted to {train_count} photographs of hands (sign-language digits, Mavi
et al., arXiv 2011.08927, Apache-2.0; split by subject) in {max_train_steps} steps of {batch_size}: by geometry weights,
by biases of the same layers, by LoRA of about as many parameters, and as a whole.""",
    "faces": """A UNet2DModel learns {train_count:,} photographs of faces (grey, 32 px) from random weights in
{max_train_steps} steps of {batch_size}, with plain convolutions and with GeoConv as in the paper (a kernel over the
product channel, random shift). The photographs have no stated licence: no image and no weights are published.""",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="results files; each gets its page beside it")
    for file in parser.parse_args().results:
        write_text(file.with_suffix(".md"), page(read_results(file, "unconditional"), file))


if __name__ == "__main__":
    sys.exit(main())
