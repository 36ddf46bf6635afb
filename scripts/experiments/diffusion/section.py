"""Denoisers from random weights: the diffusion part of claim C6, and next check N2."""

from typing import Any

from ..own_rates import section as own_rates
from ..page import Paragraph, Place, Section

NETWORKS = {
    "unet": "A UNet with blocks of {widths} channels and self-attention in the last one. All its 3x3 convolutions are "
    "of the variant's kind.",
    "transformer": "A diffusion transformer (DiT) of {blocks} blocks of {width} channels. Its only convolution is the "
    "embedding of patches of 2x2 latents, which is of the variant's kind. Each patch also gets the fixed sines and "
    "cosines of its position.",
    "transformer-without-positions": "The same transformer without these sines and cosines: with a plain convolution "
    "it cannot know where a patch lies; with GeoConv or CoordConv the patch embedding alone tells it.",
}


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
    section.blocks += place.published(".png", "The first images of each variant's first seed, from the same noise")
    return section
