"""Denoisers from random weights: the diffusion part of claim C6, and next check N2."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..own_rates import section as own_rates
from ..page import Paragraph, Place, Section
from ..results import Run

NOT_LEARNT = 0.5  # of the noise's variance, which predicting nothing leaves whole

TRANSFORMER = (
    "A diffusion transformer (DiT) of {blocks} blocks of {width} channels. Its only convolution is the embedding of "
    "patches of 2x2 latents, which is of the variant's kind."
)
NETWORKS = {
    "unet": "A UNet with blocks of {widths} channels and self-attention in the last one. All its 3x3 convolutions are "
    "of the variant's kind.",
    "transformer": f"{TRANSFORMER} Each patch also gets the fixed sines and cosines of its position.",
    "transformer-without-positions": f"{TRANSFORMER} Patches get no sines and cosines of their positions: with a plain "
    "convolution the network cannot know where a patch lies; with GeoConv or CoordConv the embedding alone tells it.",
}


def failures(runs: Sequence[Run]) -> str:
    """ "2 of convolution", of the variants with runs that predict little more than nothing; empty without any."""
    counts = Counter(run["variant"] for run in runs if run["scores"]["test"] > NOT_LEARNT)
    return ", ".join(f"{count} of {name}" for name, count in counts.items())


def build_section(results: dict[str, Any], place: Place) -> Section:
    """What sections at own rates have, with what was trained, and images."""
    section = own_rates.build_section(results, place)
    settings, real = results["settings"], results["real"]
    network = NETWORKS[settings["network"]].format(
        widths=", ".join(map(str, settings["widths"])), blocks=len(settings["widths"]), width=settings["widths"][0]
    )
    section.blocks.insert(
        0,
        Paragraph(
            f"{network} It learns to draw rendered hands of 64 x 64 pixels ({settings['train_count']:,} images, no "
            f"captions) as latents of the autoencoder of `{results['autoencoder']}`. The loss is the mean squared "
            "error of the predicted noise; each validation and test image has a noise level and noise of its own, "
            f"the same for all networks. Scores are of {settings['samples']} images from the same "
            f"noise in {settings['sample_steps']} steps of DDIM: **hand found** and **well formed** by the package's "
            "second judge (0 without a hand), **KID** to the test images and **Vendi score** in the features of "
            f"MobileNetV2. Of as many real images, through the autoencoder: found {real['found']:.2f}, well formed "
            f"{real['well_formed']:.2f}, KID {real['kid']:.3f}, Vendi score {real['vendi']:.1f}."
        ),
    )
    if not own_rates.draws_hands(results["runs"]):
        section.blocks.insert(
            1,
            Paragraph(
                "**After so few steps the images show no hands**, so their scores say nothing, and only the losses are "
                "compared."
            ),
        )
    if failed := failures(results["runs"]):
        section.blocks.insert(
            1,
            Paragraph(
                f"Runs that did not learn (test loss above {NOT_LEARNT}) at the rate that the sweep's few seeds chose: "
                f"{failed}. They count in all means and ratios."
            ),
        )
    section.blocks += place.published(".png", "The first images of each variant's first seed, from the same noise")
    return section
