"""The page of the experiment's results file.

python -m scripts.experiments.text_to_image_photographs.section docs/results/text_to_image_photographs.json
"""

from pathlib import Path

from ..arms_page import arms_table, statements, sweeps_table, write_pages

REFERENCE = "geometry"
NAMES = {"loss": "denoising loss", "kid": "kernel distance", "hands_found": "share of hands found"}
MEASURES = {
    "loss": ("loss ratio", ".4f"),
    "kid": ("kernel distance", ".4f"),
    "frechet": ("Fréchet distance", ".2f"),
    "hands_found": ("hands found", ".3f"),
}


def page(results: dict, file: Path) -> str:
    settings, runs, arms, images = (results[name] for name in ("settings", "runs", "variants", "images"))
    return f"""# Text-to-image on photographs

{statements(runs, arms, REFERENCE, NAMES)}

The packaged model of rendered hands is fine-tuned on {images["train"]:,} photographs of hands (sign-language digits,
Mavi et al., arXiv 2011.08927, Apache-2.0; split by subject; 64 px) with their captions, in
{settings["max_train_steps"]} steps of {settings["batch_size"]}: by geometry weights, by biases of the same layers, by
LoRA and as a whole UNet. Its autoencoder stays as it is, and spoils photographs
([the decoder's own experiment](vae_decoder.md)). Each arm has its own learning rate, by a sweep on
{images["validation"]} validation photographs with seed {settings["sweep_seed"]}; then {len(settings["seeds"])} other
seeds are trained, which all arms share. Loss: denoising loss on {images["test"]} photographs of other people, with the
same noise for all, as a ratio to that of the base. Distances: of {settings["num_samples"]} images, drawn from test
captions in {settings["sample_steps"]} steps, to the test photographs, in MobileNetV2's features; smaller is better.
Hands found: share of these images in which MediaPipe finds a hand. In brackets: 95% intervals (Student's t over seeds).
The statements are of paired differences, corrected by Holm's method. {results["date"]}, one CPU core.

```bash
{results["command"]}
```

{arms_table(runs, arms, MEASURES)}

Validation loss by learning rate, as a ratio, one run each:

{sweeps_table(arms, "ratio by rate")}

![Photographs, and images of each arm from the same noise and captions]({file.stem}.png)
"""


if __name__ == "__main__":
    write_pages(__doc__, "text_to_image_photographs", page)
