"""The page of an unconditional experiment's results file.

python -m scripts.experiments.unconditional.section docs/results/unconditional_hands.json
"""

from pathlib import Path

from ..arms_page import arms_table, statements, sweeps_table, write_pages

REFERENCE = {"hands": "geometry", "faces": "GeoConv"}
NAMES = {"loss": "denoising loss", "kid": "kernel distance", "frechet": "Fréchet distance"}
MEASURES = {"loss": ("loss", ".4f"), "kid": ("kernel distance", ".4f"), "frechet": ("Fréchet distance", ".2f")}


def page(results: dict, file: Path) -> str:
    settings, runs, arms = results["settings"], results["runs"], results["variants"]
    subject = settings["subject"]
    what = ABOUT[subject].format(**settings, **{f"{name}_count": count for name, count in results["images"].items()})
    ratio = ", as a ratio to that of the base" if subject == "hands" else ""
    picture = f"\n![Images of each arm, from the same noise]({file.stem}.png)\n" if subject == "hands" else ""
    return f"""# Diffusion of pixels: {subject}

{statements(runs, arms, REFERENCE[subject], NAMES)}

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

{arms_table(runs, arms, MEASURES)}

Validation loss by learning rate{ratio}, one run each:

{sweeps_table(arms, "loss by rate")}
{picture}"""


ABOUT = {
    "hands": """A UNet2DModel of 1.8 million weights learnt {base_images:,} rendered hands of 32 px from random weights
in {base_steps:,} steps of {batch_size}. It is adapted to {train_count} photographs of hands (sign-language digits, Mavi
et al., arXiv 2011.08927, Apache-2.0; split by subject) in {max_train_steps} steps of {batch_size}: by geometry weights,
by biases of the same layers, by LoRA of about as many parameters, and as a whole.""",
    "faces": """A UNet2DModel learns {train_count:,} photographs of faces (grey, 32 px) from random weights in
{max_train_steps} steps of {batch_size}, with plain convolutions and with GeoConv as in the paper (a kernel over the
product channel, random shift). The photographs have no stated licence: no image and no weights are published.""",
}


if __name__ == "__main__":
    write_pages(__doc__, "unconditional", page)
