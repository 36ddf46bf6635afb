"""The claims on VAEs, and which runs they are of."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from geopos_diffusers.metrics.features import SMALL_EXTRACTOR

from ..center_of_mass.section import change
from ..page import ClaimRow, Headline, format_interval
from ..results import Run, by_variant, score_ratio, select
from ..statistics import Estimate, difference_estimate, exponential, jackknife_estimate, ratio_estimate
from ..verdict import MEASURED, Effect

NO_SHIFT = "GeoConv, no shift"
VARIANTS = ("convolution", "CoordConv", "GeoConv", NO_SHIFT)
SMALLER_LOSS = "VAE: smaller test loss than the convolution"
LEAST_REDUCTION = 0.10  # of the paper's 10-25% smaller losses
LEAST_NARROWING = 5  # of the paper's 5-11 times narrower intervals
KID = f"{SMALL_EXTRACTOR}_kid"
# Where samples come from, by the prefix of their scores.
SOURCES = {"": "the prior", "fitted_": "fitted latents"}


def read_runs(results: dict[str, Any]) -> list[Run]:
    """The runs, with the scores of samples among their scores."""
    return [{**run, "scores": {**run["scores"], **run["sample_scores"]}} for run in results["runs"]]


def compared(results: dict[str, Any], latent_size: int) -> dict[str, list[Run]]:
    """The runs of each variant at one size of latents, as `by_variant` names them."""
    return by_variant(select(read_runs(results), latent_size=latent_size), VARIANTS)


def stack(results: dict[str, Any], variants: Sequence[str], value: Callable[[Run], Any]) -> np.ndarray:
    """`value` of every run, [seeds, latent sizes, variants, ...], for the seeds that all of them have."""
    groups = [
        [{run["seed"]: run for run in compared(results, latent_size).get(name, [])} for name in variants]
        for latent_size in results["settings"]["latent_sizes"]
    ]
    seeds = sorted(set.intersection(*(set(runs) for group in groups for runs in group)))
    if not seeds:
        return np.empty((0, len(groups), len(variants)))
    return np.array([[[value(runs[seed]) for runs in group] for group in groups] for seed in seeds])


def loss_curve(run: Run) -> list[float]:
    return run["curves"]["test"]


def pooled_ratio(rows: np.ndarray) -> Estimate:
    """First variant by the second, [S, L, 2]: a seed's is the geometric mean over latent sizes."""
    means = np.exp(np.log(rows).mean(1))
    return ratio_estimate(means[:, 0], means[:, 1])


def pooled_difference(rows: np.ndarray) -> Estimate:
    """First variant minus the second, [S, L, 2]: a seed's is the mean over latent sizes."""
    means = rows.mean(1)
    return difference_estimate(means[:, 0], means[:, 1])


def log_width_ratio(rows: np.ndarray) -> float:
    """Logarithm of how much wider the intervals over seeds of the first variant's curves are: [S, L, 2, P].

    The width of a t interval of a mean over seeds is the standard deviation over seeds times a number that the
    variants share. Mean over latent sizes and points of the curve; nan where one has no width.
    """
    if len(rows) < 2:
        return float("nan")
    spread = rows.std(0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.log(spread[:, 0] / spread[:, 1]).mean())


def log_width_ratio_over_all(rows: np.ndarray) -> float:
    """`log_width_ratio` of intervals over the runs of all seeds and latent sizes together."""
    return log_width_ratio(rows.reshape(-1, 1, *rows.shape[2:]))


def width_ratio(rows: np.ndarray, statistic: Callable[[np.ndarray], float] = log_width_ratio) -> Estimate:
    """How much wider; a seed goes with all its latent sizes and variants."""
    return exponential(jackknife_estimate(statistic, rows))


def change_text(ratio: Estimate) -> str:
    return format_interval(change(ratio), 1, percent=True)


def claim_rows(results: dict[str, Any]) -> list[ClaimRow]:
    name, sizes = results["data"]["name"], results["settings"]["latent_sizes"]
    budget = f"{results['settings']['steps']} steps"
    setting = f"{name}; latents of {', '.join(map(str, sizes))}; {budget}"
    rows = []
    for other in ("convolution", "CoordConv"):
        found = pooled_ratio(stack(results, ("GeoConv", other), score_named("test")))
        headline = None
        if other == "convolution":
            headline = Headline(SMALLER_LOSS, setting, change_text(found))
        rows.append(loss_row(f"VAE: test loss of GeoConv against {other}", found, setting, headline))
    middle = compared(results, sizes[len(sizes) // 2])
    matched = [middle.get(f"{variant}, matched") for variant in ("GeoConv", "convolution")]
    if all(matched):
        claim = "VAE: test loss of GeoConv against convolution, equal parameters"
        place = f"{name}; latents of {matched[0][0]['latent_size']}; {budget}"
        rows.append(loss_row(claim, score_ratio(*matched, "test"), place))
    rows += width_rows(results, setting)
    for prefix in SOURCES:
        rows += diversity_rows(results, prefix, setting)
        if KID in results["real"]:
            rows.append(kid_row(results, prefix, setting))
    return [*rows, shift_row(results, setting)]


def score_named(name: str) -> Callable[[Run], float]:
    return lambda run: run["scores"][name]


def loss_row(claim: str, ratio: Estimate, setting: str, headline: Headline | None = None) -> ClaimRow:
    effect = Effect(ratio, "less", 1, 1 - LEAST_REDUCTION)
    return ClaimRow("C4", claim, "-10% to -25%", change_text(ratio), ratio.count, setting, effect, headline)


def width_rows(results: dict[str, Any], setting: str) -> list[ClaimRow]:
    """How much narrower the intervals of the test loss's curve are than the convolution's."""
    claim = "VAE: intervals over seeds narrower than the convolution's"
    statistics = [(log_width_ratio, "over seeds"), (log_width_ratio_over_all, "over seeds and latent sizes")]
    rows = []
    for statistic, over in statistics if len(results["settings"]["latent_sizes"]) > 1 else statistics[:1]:
        found = {
            other: width_ratio(stack(results, ("convolution", other), loss_curve), statistic)
            for other in ("GeoConv", "CoordConv")
        }
        rows.append(
            ClaimRow(
                "C4",
                f"VAE: 95% intervals of the test loss's curve narrower than the convolution's, {over}",
                "5 to 11 times",
                ", ".join(f"{other} {format_interval(interval)} times" for other, interval in found.items()),
                found["GeoConv"].count,
                setting,
                Effect(found["GeoConv"], "more", 1, LEAST_NARROWING),
                Headline(claim, setting, format_interval(found["GeoConv"])) if over == "over seeds" else None,
            )
        )
    return rows


def diversity_rows(results: dict[str, Any], prefix: str, setting: str) -> list[ClaimRow]:
    rows = []
    scores = (("vendi", "higher Vendi score of pixels", "more"), ("ms_ssim", "lower MS-SSIM of pairs", "less"))
    for score, label, claimed in scores:
        found = {
            name: pooled_ratio(stack(results, (name, "convolution"), score_named(prefix + score)))
            for name in ("GeoConv", "CoordConv")
        }
        headline = None
        if not prefix and score == "vendi":
            figures = format_interval(found["GeoConv"])
            headline = Headline("VAE: more diverse samples (Vendi score of pixels)", setting, figures)
        rows.append(
            ClaimRow(
                "C4",
                f"VAE: more diverse samples of {SOURCES[prefix]} ({label})",
                "stated, no figure in the digest",
                f"{beside(found, 2)} of the convolution's",
                found["GeoConv"].count,
                setting,
                Effect(found["GeoConv"], claimed, 1),
                headline,
            )
        )
    return rows


def kid_row(results: dict[str, Any], prefix: str, setting: str) -> ClaimRow:
    """A difference, as the distance of real images is about 0."""
    found = {
        name: pooled_difference(stack(results, (name, "convolution"), score_named(prefix + KID)))
        for name in ("GeoConv", "CoordConv")
    }
    claim = f"VAE: better samples (lower KID-{SMALL_EXTRACTOR})"
    return ClaimRow(
        "C4",
        f"VAE: better samples of {SOURCES[prefix]} (lower KID-{SMALL_EXTRACTOR})",
        "stated, no figure in the digest",
        f"{beside(found, 4)} above the convolution's",
        found["GeoConv"].count,
        setting,
        Effect(found["GeoConv"], "less", 0),
        None if prefix else Headline(claim, setting, format_interval(found["GeoConv"], 3)),
    )


def beside(found: dict[str, Estimate], digits: int) -> str:
    return ", ".join(f"{name} {format_interval(estimate, digits)}" for name, estimate in found.items())


def shift_row(results: dict[str, Any], setting: str) -> ClaimRow:
    without, plain = (
        width_ratio(stack(results, pair, loss_curve)) for pair in ((NO_SHIFT, "GeoConv"), ("convolution", NO_SHIFT))
    )
    claim = "VAE: is it the shift that makes curves consistent?"
    headline = Headline(claim, setting, f"{format_interval(without)} times as wide without")
    return ClaimRow(
        "Q2",
        claim,
        "open question",
        f"intervals {format_interval(without)} times as wide without the shift as with it; the convolution's "
        f"{format_interval(plain)} times as wide as those without it",
        without.count,
        setting,
        MEASURED,
        headline,
    )
