"""The page docs/results/vae_decoder.md, from its JSON file.

python -m scripts.experiments.vae_decoder.section --results docs/results
"""

import argparse
from pathlib import Path

from geopos_diffusers.files import write_text

from ..arms_page import difference, estimate_cell, rate_cell
from ..page import markdown_table
from ..results import mean_score, read_results, select
from ..verdict import comparison_texts

REGIONS = {"image": "the whole image", "ring": "the ring", "centre": "the centre"}
REFERENCE, UNTOUCHED = "geometry", "untouched"


def cell(value: float, low: float | None, high: float | None, style: str) -> str:
    """ "0.600 [0.597, 0.604]"; the value alone where there is no interval."""
    return f"{value:{style}}{'' if low is None else f' [{low:{style}}, {high:{style}}]'}"


def page(results: dict) -> str:
    runs, arms, settings, images = (results[name] for name in ("runs", "variants", "settings", "image_intervals"))
    others = [name for name in arms if name != REFERENCE]
    tests = [(name, region) for region in REGIONS for name in others]
    texts = comparison_texts(
        [difference(runs, REFERENCE, name, f"l1_{region}") for name, region in tests], [name for name, _ in tests]
    )
    said = [
        f"- In {REGIONS[region]} the error (L1) of the geometry weights is "
        f"{', '.join(text for text, (_, where) in zip(texts, tests, strict=True) if where == region)}."
        for region in REGIONS
    ]
    measured = []
    for name in (UNTOUCHED, *arms):
        own = select(runs, variant=name)
        arm = arms.get(name)
        rate = "" if arm is None else rate_cell(arm)
        cells = [estimate_cell(mean_score(own, f"psnr_{region}"), ".2f") for region in REGIONS]
        more = [estimate_cell(mean_score(own, score), ".4f") for score in ("lpips_image", "kid")]
        measured.append([name, "" if arm is None else f"{arm['parameters']:,}", rate, str(len(own)), *cells, *more])
    gains = []
    for compared, intervals in images.items():
        columns = [*(f"psnr_{region}" for region in REGIONS), "psnr_ring_minus_centre"]
        found = [cell(*(intervals[name][end] for end in ("value", "low", "high")), "+.2f") for name in columns]
        lpips = intervals["lpips_image"]
        gains.append([compared, *found, cell(lpips["value"], lpips["low"], lpips["high"], "+.4f")])
    rates = sorted({float(rate) for arm in arms.values() for rate in arm["sweep"]})
    swept = [
        [name, *("" if (loss := arm["sweep"].get(f"{rate:g}")) is None else f"{loss:.4f}" for rate in rates)]
        for name, arm in arms.items()
    ]
    seeds, ring = len(settings["seeds"]), settings["ring_pixels"]
    head = ["trained", "parameters", "rate", "seeds", "PSNR, image [dB]", "ring", "centre", "LPIPS", "KID"]
    gain_head = ["difference", "PSNR, image [dB]", "ring", "centre", "ring minus centre", "LPIPS"]
    return f"""# A decoder mended on photographs

{chr(10).join(said)}

The packaged autoencoder knows rendered hands alone. Its decoder is fine-tuned on photographs of real hands
(Mavi et al., arXiv 2011.08927, Apache-2.0; {settings["size"]} px, {settings["steps"]} steps of
{settings["batch_size"]}, L1, random squares, mirrored at random), while its encoder stays as it is. The people in the
training, validation and test images differ. Each arm has its own best learning rate by the L1 of
{settings["validation_images"]} validation images (seed {settings["sweep_seed"]}); the grid grows until the
best rate has a worse one on both sides. Then each is
trained with {seeds} other seeds, which all arms share, and scored on {settings["test_images"]} test images beside the
untouched decoder. The ring is the outer {ring} pixels on each side, as 16 at 256 px. In brackets: 95% intervals,
in the first table over the seeds (Student's t), in the second over the images (paired bootstrap of means over seeds).
The statements above are of paired differences over the seeds with p values below 0.05, corrected by Holm's method.
{results["date"]}, one CPU core.

```bash
python -m scripts.experiments.vae_decoder.run --photographs sign-language-digits --output runs/vae_decoder \\
    --results docs/results/vae_decoder.json --steps {settings["steps"]} --num-seeds {seeds}
python -m scripts.experiments.vae_decoder.section --results docs/results
```

{markdown_table(head, measured)}

LPIPS is {results["lpips"]}, which cannot be compared with that of papers. KID is {results["kid"]}, of the
reconstructions beside the originals. "LoRA" has rank 1 on the second convolution of each residual block, to have about
as many parameters as the geometry weights. "whole decoder" is the upper bound.

{markdown_table(gain_head, gains)}

"ring minus centre" is positive where the first of the two does more along the border than in the centre.

![Gains, sweeps and reconstructions](vae_decoder.png)

## The sweeps

L1 of the validation images by peak learning rate, one run each.

{markdown_table(["trained", *(f"{rate:g}" for rate in rates)], swept)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", required=True, help="folder of vae_decoder.json; the page is written there")
    folder = Path(parser.parse_args().results)
    write_text(folder / "vae_decoder.md", page(read_results(folder / "vae_decoder.json", "vae_decoder")))


if __name__ == "__main__":
    main()
