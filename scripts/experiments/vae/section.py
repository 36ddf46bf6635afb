"""Claim C4 and question Q2: losses of VAEs, how alike their runs are, and what their samples are like."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geopos_diffusers.files import atomic_path
from geopos_diffusers.metrics.bootstrap import RESAMPLES, Interval, bootstrap_interval

from ..center_of_mass.section import verdict
from ..page import ClaimRow, Paragraph, Picture, Place, Section, Table, format_interval
from ..results import Run, by_variant, geometry, mean_interval, ratio_interval, select

VARIANTS = {
    "convolution": {"kind": "conv"},
    "CoordConv": {"kind": "coord"},
    "GeoConv": geometry(),
    "GeoConv without shift": geometry(shift_range=0.0),
}
COLORS = ("C7", "C1", "C0", "C2")
LEAST_REDUCTION = 0.10  # of the paper's 10-25% smaller losses
LEAST_NARROWING = 5  # of the paper's 5-11 times narrower intervals
# Sample scores of the table, and how many digits they are shown with.
SAMPLE_SCORES = {
    "vendi": ("Vendi, pixels", 1),
    "mobilenet_vendi": ("Vendi, MobileNetV2", 1),
    "ms_ssim": ("MS-SSIM of pairs", 3),
    "mobilenet_kid": ("KID-MobileNetV2", 3),
}


# Where samples come from, by the prefix of their scores.
SOURCES = {"": "the prior", "fitted_": "fitted latents"}


def read_runs(results: dict[str, Any]) -> list[Run]:
    """The runs, with the scores of samples among their scores."""
    return [{**run, "scores": {**run["scores"], **run["sample_scores"]}} for run in results["runs"]]


def compared(results: dict[str, Any], latent_size: int) -> dict[str, list[Run]]:
    """The runs of each variant at one size of latents, as `by_variant` names them."""
    return by_variant(select(read_runs(results), latent_size=latent_size), VARIANTS, results["settings"]["widths"])


def stack(results: dict[str, Any], variants: Sequence[str], value: Callable[[Run], Any]) -> np.ndarray:
    """`value` of every run, [seeds, latent sizes, variants, ...], for the seeds that all of them have."""
    groups = [
        [{run["seed"]: run for run in compared(results, latent_size).get(name, [])} for name in variants]
        for latent_size in results["settings"]["latent_sizes"]
    ]
    seeds = sorted(set.intersection(*(set(runs) for group in groups for runs in group)))
    return np.array([[[value(runs[seed]) for runs in group] for group in groups] for seed in seeds])


def loss_curve(run: Run) -> list[float]:
    return run["curves"]["test"]


def pooled_ratio(rows: np.ndarray) -> float:
    """Mean over seeds of the first variant by that of the second, [S, L, 2]; geometric mean over latent sizes."""
    means = rows.mean(0)
    return float(np.exp(np.log(means[:, 0] / means[:, 1]).mean()))


def width_ratio(rows: np.ndarray) -> float:
    """How much wider the intervals over seeds of the first variant's curves are than the second's: [S, L, 2, P].

    The width of a t interval of a mean over seeds is the standard deviation over seeds times a number that the
    variants share. Geometric mean over latent sizes and points of the curve; nan where one has no width.
    """
    if len(rows) < 2:
        return float("nan")
    spread = rows.std(0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.exp(np.log(spread[:, 0] / spread[:, 1]).mean()))


def width_ratio_over_all(rows: np.ndarray) -> float:
    """`width_ratio` of intervals over the runs of all seeds and latent sizes together."""
    return width_ratio(rows.reshape(-1, 1, *rows.shape[2:]))


def interval_of(statistic: Callable[[np.ndarray], float], rows: np.ndarray) -> Interval:
    """Bootstrap over seeds: a seed is drawn with all its latent sizes and variants."""
    return bootstrap_interval(statistic, rows, seed=0)


def inverse(interval: Interval) -> Interval:
    """The interval of 1 / x."""
    if interval.value is None:
        return interval
    return Interval(1 / interval.value, 1 / interval.high, 1 / interval.low)


def change_text(ratio: Interval) -> str:
    ends = (ratio.value, ratio.low, ratio.high)
    return format_interval(Interval(*(None if end is None else end - 1 for end in ends)), 1, percent=True)


def diversity_verdict(vendi: Interval, similarity: Interval) -> str:
    """From ratios of GeoConv to the convolution: reproduced if Vendi is higher and MS-SSIM lower, in part if one is."""
    better = [vendi.low is not None and vendi.low > 1, similarity.high is not None and similarity.high < 1]
    return "reproduced" if all(better) else "in part" if any(better) else "not reproduced"


def build_section(results: dict[str, Any], place: Place) -> Section:
    """The section of one data set and budget."""
    settings, data = results["settings"], results["data"]
    name, figure = data["name"], place.figure("_curves.png")
    draw_curves(results, figure)
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
        Picture(figure.name, f"{name}: training and test losses, means over seeds with 95% bootstrap bands"),
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


def claim_rows(results: dict[str, Any]) -> list[ClaimRow]:
    name, sizes = results["data"]["name"], results["settings"]["latent_sizes"]
    budget = f"{results['settings']['steps']} steps"
    over_sizes = f"{name}; latents of {', '.join(map(str, sizes))}; {budget}"
    middle = compared(results, sizes[len(sizes) // 2])

    def ratio(variant: str, other: str, score: str) -> Interval:
        return interval_of(pooled_ratio, stack(results, (variant, other), lambda run: run["scores"][score]))

    def width(variant: str, other: str, statistic: Callable[[np.ndarray], float] = width_ratio) -> Interval:
        return interval_of(statistic, stack(results, (variant, other), loss_curve))

    seeds = len(stack(results, list(VARIANTS), lambda run: run["seed"]))
    rows = []
    for other in ("convolution", "CoordConv"):
        found = ratio("GeoConv", other, "test")
        rows.append(
            ClaimRow(
                "C4",
                f"VAE: test loss of GeoConv against {other}",
                "-10% to -25%",
                change_text(found),
                seeds,
                over_sizes,
                verdict(found, LEAST_REDUCTION),
            )
        )
    matched = [middle.get(f"{variant}, matched") for variant in ("GeoConv", "convolution")]
    if all(matched):
        found = ratio_interval(*matched, "test")
        rows.append(
            ClaimRow(
                "C4",
                "VAE: test loss of GeoConv against convolution, equal parameters",
                "-10% to -25%",
                change_text(found),
                len(matched[0]),
                f"{name}; latents of {matched[0][0]['latent_size']}; {budget}",
                verdict(found, LEAST_REDUCTION),
            )
        )
    widths = [(width_ratio, "over seeds"), (width_ratio_over_all, "over seeds and latent sizes")]
    for statistic, over in widths if len(sizes) > 1 else widths[:1]:
        found = {other: width("convolution", other, statistic) for other in ("GeoConv", "CoordConv")}
        rows.append(
            ClaimRow(
                "C4",
                f"VAE: 95% intervals of the test loss's curve narrower than the convolution's, {over}",
                "5 to 11 times",
                ", ".join(f"{other} {format_interval(interval)} times" for other, interval in found.items()),
                seeds,
                over_sizes,
                verdict(inverse(found["GeoConv"]), 1 - 1 / LEAST_NARROWING),
            )
        )
    for prefix in SOURCES:
        rows.append(diversity_row(ratio, prefix, seeds, over_sizes))
        if "mobilenet_kid" in results["real"]:
            rows.append(kid_row(results, prefix, seeds, over_sizes))
    found = width("GeoConv without shift", "GeoConv"), width("convolution", "GeoConv without shift")
    rows.append(
        ClaimRow(
            "Q2",
            "VAE: is it the shift that makes curves consistent?",
            "open question",
            f"intervals {format_interval(found[0])} times as wide without the shift as with it; the convolution's "
            f"{format_interval(found[1])} times as wide as those without it",
            seeds,
            over_sizes,
            "measured",
        )
    )
    return rows


def diversity_row(ratio: Callable[[str, str, str], Interval], prefix: str, seeds: int, setting: str) -> ClaimRow:
    found = {
        (variant, score): ratio(variant, "convolution", prefix + score)
        for variant in ("GeoConv", "CoordConv")
        for score in ("vendi", "ms_ssim")
    }
    texts = [
        f"{variant}: Vendi {format_interval(found[variant, 'vendi'])}, "
        f"MS-SSIM {format_interval(found[variant, 'ms_ssim'])} of the convolution's"
        for variant in ("GeoConv", "CoordConv")
    ]
    return ClaimRow(
        "C4",
        f"VAE: more diverse samples of {SOURCES[prefix]} (higher Vendi score of pixels, lower MS-SSIM of pairs)",
        "stated, no figure in the digest",
        "; ".join(texts),
        seeds,
        setting,
        diversity_verdict(found["GeoConv", "vendi"], found["GeoConv", "ms_ssim"]),
    )


def kid_row(results: dict[str, Any], prefix: str, seeds: int, setting: str) -> ClaimRow:
    """A difference, as the distance of real images is about 0."""

    def difference(variant: str) -> Interval:
        rows = stack(results, (variant, "convolution"), lambda run: run["scores"][f"{prefix}mobilenet_kid"])
        return interval_of(lambda drawn: float((drawn[:, :, 0] - drawn[:, :, 1]).mean()), rows)

    geo, coord = difference("GeoConv"), difference("CoordConv")
    return ClaimRow(
        "C4",
        f"VAE: better samples of {SOURCES[prefix]} (lower KID-MobileNetV2)",
        "stated, no figure in the digest",
        f"GeoConv {format_interval(geo, 4)}, CoordConv {format_interval(coord, 4)} above the convolution's",
        seeds,
        setting,
        "reproduced" if geo.high is not None and geo.high < 0 else "not reproduced",
    )


def loss_table(results: dict[str, Any]) -> Table:
    rows = []
    for latent_size in results["settings"]["latent_sizes"]:
        variants = compared(results, latent_size)
        for name, runs in variants.items():
            other = "convolution, matched" if name.endswith(", matched") else "convolution"
            losses = [format_interval(mean_interval(runs, part), 1) for part in ("test", "validation")]
            parts = [format_interval(mean_interval(runs, part), 1) for part in ("test_reconstruction", "test_kl")]
            ratio = width = "-"
            if other in variants and name != other:
                ratio = format_interval(ratio_interval(runs, variants[other], "test"), 3)
                width = format_interval(interval_of(width_ratio, curves_of(variants[other], runs)))
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
                    format_interval(mean_interval(runs, prefix + score), digits) for score, (_, digits) in shown.items()
                ]
                rows.append((str(latent_size), name, source, str(len(runs)), *cells))
    real = [f"{results['real'][score]:.{digits}f}" for score, (_, digits) in shown.items()]
    rows.append(("", "photographs", "", "", *real))
    return Table(("latents", "variant", "samples of", "seeds", *(label for label, _ in shown.values())), rows)


def bands(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends [P] of the 95% bootstrap intervals of the mean over runs [S, P], point by point."""
    drawn = np.random.default_rng(0).integers(0, len(curves), (RESAMPLES, len(curves)))
    low, high = np.quantile(curves[drawn].mean(1), [0.025, 0.975], axis=0)
    return low, high


def draw_curves(results: dict[str, Any], target: Path) -> None:
    """A row for the training and one for the test loss, a column a latent size, a line with a band a variant."""
    from matplotlib.figure import Figure

    sizes = results["settings"]["latent_sizes"]
    figure = Figure(figsize=(1 + 3.6 * len(sizes), 6), layout="constrained")
    panels = figure.subplots(2, len(sizes), sharex=True, sharey="row", squeeze=False)
    for column, latent_size in enumerate(sizes):
        variants = compared(results, latent_size)
        for line, (curve, label) in enumerate((("train_loss", "training loss"), ("test", "test loss"))):
            axes = panels[line, column]
            for name, color in zip(VARIANTS, COLORS, strict=True):
                runs = variants.get(name, [])
                if runs:
                    values = np.array([run["curves"][curve] for run in runs])
                    steps = runs[0]["curves"]["step"]
                    axes.plot(steps, values.mean(0), color=color, linewidth=1.4, label=name)
                    axes.fill_between(steps, *bands(values), color=color, alpha=0.25, linewidth=0)
            axes.set_yscale("log")
            axes.grid(alpha=0.25, which="both")
            if not column:
                axes.set_ylabel(f"{label} [nats an image]")
        panels[0, column].set_title(f"latents of {latent_size}")
        panels[1, column].set_xlabel("step")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=100, format="png")
