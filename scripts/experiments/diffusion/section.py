"""Denoisers from random weights: the diffusion part of claim C6, and next check N2."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from ..own_rates import section as own_rates
from ..page import ClaimRow, Headline, Paragraph, Place, Section, format_interval
from ..results import Run
from ..verdict import Effect, Question

NOT_LEARNT = 0.5  # of the noise's variance, which predicting nothing leaves whole
LEAST_FOUND = 0.1  # share of drawn images with a hand, below which they are not worth a comparison
# What is claimed by some measures: in words, which way, and the value without an effect.
CLAIMS = {
    "test loss x 100": ("a smaller denoising loss", "less", 1),
    "well formed": ("better hands (second judge)", "more", 0),
}
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


def shown_network(settings: dict[str, Any]) -> str:
    return settings["network"].replace("-", " ")


def draws_hands(runs: Sequence[Run]) -> bool:
    """Whether the images show hands often enough to be compared."""
    return fmean(run["sample_scores"]["found"] for run in runs) >= LEAST_FOUND


def claim_rows(results: dict[str, Any]) -> list[ClaimRow]:
    """Both GeoConvs against a convolution and CoordConv, by the measures of CLAIMS."""
    return [
        claim_row(results, measure, name, other)
        for measure in own_rates.MEASURES["diffusion"]
        if measure.label in CLAIMS
        for name in own_rates.SHIFTED
        for other in own_rates.PLAIN
    ]


def claim_row(results: dict[str, Any], measure: own_rates.Measure, name: str, other: str) -> ClaimRow:
    """Claim C6 of a UNet; next check N2 of a transformer, of which the paper claims nothing."""
    settings, found = results["settings"], own_rates.compare(results, measure, name, other)
    network, figures = shown_network(settings), format_interval(found)
    words, *expected = CLAIMS[measure.label]
    claim = f"diffusion from random weights: {words} than {other}"
    if settings["network"] == "unet":
        number, paper, test = "C6", "stated, no figure in the digest", Effect(found, *expected)
    else:
        number, paper, test = "N2", "named as a next check", Question(found, *expected)
    if measure.label == "well formed" and not draws_hands(results["runs"]):
        test = "not tested: no network draws hands yet"
    return ClaimRow(
        number,
        f"{claim}, {name}",
        paper,
        figures,
        found.count,
        f"{network}; {settings['steps']} steps",
        test,
        Headline(claim, f"{network}{own_rates.SHIFTED[name]}", figures),
    )


def failures(runs: Sequence[Run]) -> str:
    """ "2 of convolution", of the variants with runs that predict little more than nothing; empty without any."""
    counts = Counter(run["variant"] for run in runs if run["scores"]["test"] > NOT_LEARNT)
    return ", ".join(f"{count} of {name}" for name, count in counts.items())


def build_section(results: dict[str, Any], place: Place) -> Section:
    """What sections at own rates have, with what was trained, and images."""
    section = own_rates.build_section(results, place, claims=claim_rows(results))
    settings, real = results["settings"], results["real"]
    section.title = f"Diffusion from random weights: {shown_network(settings)}, {settings['steps']} steps"
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
    if not draws_hands(results["runs"]):
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
