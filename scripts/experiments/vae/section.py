"""Claim C4 and question Q2: losses of VAEs, how alike their runs are, and what their samples are like."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from geopos_diffusers.metrics.features import SMALL_EXTRACTOR

from ..page import Paragraph, Picture, Place, Section, Table, format_interval
from ..results import Run, mean_score, score_ratio
from .claims import KID, SOURCES, claim_rows, compared, loss_curve, width_ratio
from .figure import draw_curves

# Sample scores of the table, and how many digits they are shown with.
SAMPLE_SCORES = {
    "vendi": ("Vendi, pixels", 1),
    f"{SMALL_EXTRACTOR}_vendi": (f"Vendi, {SMALL_EXTRACTOR}", 1),
    "ms_ssim": ("MS-SSIM of pairs", 3),
    KID: (f"KID-{SMALL_EXTRACTOR}", 3),
}


def build_section(results: dict[str, Any], place: Place) -> Section:
    """The section of one data set and budget."""
    settings, data = results["settings"], results["data"]
    name, figure = data["name"], place.figure("_curves.png")
    draw_curves({size: compared(results, size) for size in settings["latent_sizes"]}, figure)
    title = f"VAE, {name}, {settings['steps']} steps (C4, Q2)"
    section = Section(title, results["command"], results["date"], results["cpu_seconds"], claim_rows(results))
    section.blocks = [
        Paragraph(
            f"{data['train']} training, {data['validation']} validation and {data['test']} test images of {name}, "
            f"{settings['size']} x {settings['size']} pixels in [-1, 1]. Strided 4x4 convolutions of "
            f"{settings['widths']} channels, a linear layer to mean and log-variance of the latents, and the same "
            f"backwards; {settings['steps']} steps of {settings['batch_size']} images, the same budget and learning "
            "rate for all kinds. The loss is the negative ELBO in nats an image, with a Gaussian decoder of variance "
            f"{settings['variance']:g} and without its normalising constant; test losses draw the same noise for every "
            "network. Learning rate and variance were chosen by validation losses of the plain convolution alone, as "
            "`configs/experiments/vae.yaml` says. **Matched** has the last layer widened to CoordConv's number of "
            "parameters. The digest of the paper at hand does not describe its network or data, or against what its "
            "losses are smaller: this is our reading, and both comparisons are shown."
        ),
        loss_table(results),
        Picture(
            figure.name,
            f"{name}: training and test losses, means over seeds with 95% bands (Student's t, point by point)",
        ),
        Paragraph(
            "Training losses are means over the steps since the point before, with the random shift on. **Width** is "
            "of the 95% interval of the test loss over seeds, the convolution's by this variant's, so that more than 1 "
            "is narrower than the convolution's: the geometric mean over the points of the curve. With few seeds a "
            "width is a poor estimate, which its interval says."
        ),
        Paragraph(
            f"Samples: {settings['samples']} of the prior, the same latents for every network of a size, with the "
            "shift off; and the same number of a Gaussian with the mean and covariance of the training images' "
            "latents, since a prior that latents do not follow after so few steps makes samples poor by itself: these "
            "were added after the first samples of the prior had been seen. The "
            f"last row is of {results['real']['count']} training images; they and the samples are scored beside the "
            "same other training images. A higher Vendi score and a lower MS-SSIM mean more diverse, a lower KID "
            "nearer to the photographs; noise is diverse too, so they belong together. The Vendi score is of features "
            "without the photographs' mean, so samples that are all unlike them in the same way have a low one, too."
        ),
        sample_table(results),
        *place.published(
            "_pictures.png",
            f"{name}: the first test images, their reconstructions, samples, and ways from the first image to the "
            "second",
        ),
    ]
    return section


def loss_table(results: dict[str, Any]) -> Table:
    rows = []
    for latent_size in results["settings"]["latent_sizes"]:
        variants = compared(results, latent_size)
        for name, runs in variants.items():
            other = "convolution, matched" if name.endswith(", matched") else "convolution"
            losses = [format_interval(mean_score(runs, part), 1) for part in ("test", "validation")]
            parts = [format_interval(mean_score(runs, part), 1) for part in ("test_reconstruction", "test_kl")]
            ratio = width = "-"
            if other in variants and name != other:
                ratio = format_interval(score_ratio(runs, variants[other], "test"), 3)
                width = format_interval(width_ratio(curves_of(variants[other], runs)))
            rows.append(
                (str(latent_size), name, f"{runs[0]['parameters']:,}", str(len(runs)), *losses, *parts, ratio, width)
            )
    header = (
        *("latents", "variant", "parameters", "seeds", "test loss", "validation loss"),
        *("test reconstruction", "test KL", "test loss by convolution's", "width"),
    )
    return Table(header, rows)


def curves_of(first: Sequence[Run], second: Sequence[Run]) -> np.ndarray:
    """Test curves [S, 1, 2, P] of the seeds that both have."""
    by_seed = [{run["seed"]: loss_curve(run) for run in runs} for runs in (first, second)]
    return np.array([[[curves[seed] for curves in by_seed]] for seed in sorted(by_seed[0].keys() & by_seed[1].keys())])


def sample_table(results: dict[str, Any]) -> Table:
    shown = {score: label for score, label in SAMPLE_SCORES.items() if score in results["real"]}
    rows = []
    for latent_size in results["settings"]["latent_sizes"]:
        for name, runs in compared(results, latent_size).items():
            for prefix, source in SOURCES.items():
                cells = [
                    format_interval(mean_score(runs, prefix + score), digits) for score, (_, digits) in shown.items()
                ]
                rows.append((str(latent_size), name, source, str(len(runs)), *cells))
    real = [f"{results['real'][score]:.{digits}f}" for score, (_, digits) in shown.items()]
    rows.append(("", "photographs", "", "", *real))
    return Table(("latents", "variant", "samples of", "seeds", *(label for label, _ in shown.values())), rows)
