"""Claim C3 and questions Q1 and N3: when GANs collapse, and how diverse and how real their samples are."""

import re
from typing import Any

from geopos_diffusers.metrics.bootstrap import Interval
from geopos_diffusers.metrics.features import SMALL_EXTRACTOR

from ..page import ClaimRow, Headline, Paragraph, Picture, Place, Section, Table, format_interval
from ..results import Run, mean_score, score_ratio, select
from ..verdict import MEASURED, Effect, collapse_verdict, survival_verdict
from .collapse import Collapse, surviving_share
from .figures import PAPER_EPOCHS, draw_curves, draw_survival, late_scores, variants_of

# Which variant's scores are shown by which other's.
COMPARED = (("GeoConv", "convolution"), ("GeoConv", "CoordConv"), ("GeoConv, matched", "convolution, matched"))
# The paper's epochs by which all runs of a variant have collapsed, and the one that GeoConv's runs survive.
COLLAPSE_EPOCHS = {"CoordConv": 30, "convolution": 300}
SURVIVED_EPOCH = 450
KID = f"{SMALL_EXTRACTOR}_kid"
# Scores of the claim, and whether more of it is better.
DIVERSITY = {"vendi": ("Vendi score", True), "covered": ("share of covered bins", True), "recall": ("recall", True)}
REALISM = {"jensen_shannon": ("Jensen-Shannon divergence", False), KID: (f"KID-{SMALL_EXTRACTOR}", False)}
HEADLINES = {
    "vendi": "GAN: more diverse samples than the convolution (Vendi score)",
    KID: f"GAN: more realistic samples than the convolution (KID-{SMALL_EXTRACTOR})",
}
SCORES = {
    "covered": "bins covered",
    "jensen_shannon": "JS divergence [bit]",
    "recall": "recall",
    "coverage": "coverage",
    "vendi": "Vendi score",
    "ms_ssim": "MS-SSIM",
    KID: f"KID-{SMALL_EXTRACTOR}",
}


def build_section(results: dict[str, Any], place: Place) -> Section:
    """The section of one set of runs."""
    runs = scored_runs(results)
    settings, data = results["settings"], results["data"]
    title = f"GAN: {data['name']}, {settings['epochs']} epochs (C3, Q1{', N3' if settings['epochs'] >= 1000 else ''})"
    section = Section(title, results["command"], results["date"], results["cpu_seconds"], claim_rows(results, runs))
    curves, survival = place.figure("-curves.png"), place.figure("-survival.png")
    draw_curves(results, curves)
    draw_survival(results, survival)
    section.blocks = [
        Paragraph(
            f"DCGAN at {settings['size']} pixels, {settings['width']} channels at half the size, {data['images']} "
            f"training images, batches of {settings['batch_size']}, Adam at {settings['learning_rate']:g}. Every "
            f"{settings['evaluate_every']} epochs {settings['samples']} samples of the same latents are compared with "
            f"the training images by their pixels, averaged to 16 x 16: {settings['bins']} k-means bins, the "
            "Jensen-Shannon divergence to them, recall and coverage among nearest neighbours, the Vendi score, and "
            f"MS-SSIM of pairs at full size. **Collapsed**: {results['criterion']}. The scores are means over the last "
            "fifth of the epochs. "
            f"**Real images** is {results['real_note']}."
        ),
        *([Paragraph(results["note"])] if results.get("note") else []),
        survival_table(results),
        *collapse_text(results),
        score_table(results, runs),
        Picture(curves.name, "Scores over epochs"),
        Picture(survival.name, "Share of runs not collapsed"),
        *place.published("-film.png", "Samples of four fixed latents over epochs, first seed"),
    ]
    return section


def scored_runs(results: dict[str, Any]) -> list[Run]:
    """The runs with their late scores as "scores"."""
    return [{**run, "scores": late_scores(run)} for run in results["runs"]]


def collapses(results: dict[str, Any], variant: str) -> list[Collapse]:
    return [Collapse(**run["collapse"]) for run in select(results["runs"], variant=variant)]


def claim_rows(results: dict[str, Any], runs: list[Run]) -> list[ClaimRow]:
    """Rows of the variants that are there."""
    setting = f"{results['data']['name']}; {results['settings']['epochs']} epochs"
    return [
        *collapse_rows(results, setting),
        *(row for score in DIVERSITY | REALISM for row in score_rows(results, runs, score, setting)),
        *question_rows(results, runs, setting),
    ]


def in_short(results: dict[str, Any]) -> str:
    """ "faces, 450 epochs"."""
    name = re.sub(r" \(.*?\)", "", results["data"]["name"]).removeprefix("photographs of ")
    return f"{name}, {results['settings']['epochs']} epochs"


def collapse_rows(results: dict[str, Any], setting: str) -> list[ClaimRow]:
    there, last = variants_of(results), results["settings"]["epochs"]
    rows = []
    for variant, epoch in COLLAPSE_EPOCHS.items():
        if variant in there and last >= epoch:
            found = collapses(results, variant)
            rows.append(
                ClaimRow(
                    "C3", f"GAN: {variant} collapses", f"within {epoch} epochs", describe(found, last),
                    len(found), setting, collapse_verdict(found, epoch),
                    Headline(f"GAN: {variant} collapses", in_short(results), describe(found, last)),
                )
            )  # fmt: skip
    found = collapses(results, "GeoConv")
    if found and (last >= SURVIVED_EPOCH or any(run.collapsed_at is not None for run in found)):
        others = [run for variant in COLLAPSE_EPOCHS for run in collapses(results, variant)]
        claim = "GAN: GeoConv does not collapse, the others do"
        rows.append(
            ClaimRow(
                "C3", claim, f"not within {SURVIVED_EPOCH} epochs", describe(found, last), len(found), setting,
                survival_verdict(found, others, SURVIVED_EPOCH),
                Headline(claim, in_short(results), describe(found, last)),
            )
        )  # fmt: skip
    return rows


def score_rows(results: dict[str, Any], runs: list[Run], score: str, setting: str) -> list[ClaimRow]:
    """One late score of GeoConv by that of each other variant with which it shares two seeds or more."""
    label, more_is_better = (DIVERSITY | REALISM)[score]
    rows = []
    for names in COMPARED:
        pair = [select(runs, variant=variant) for variant in names]
        if not all(pair) or score not in runs[0]["scores"]:
            continue
        ratio = score_ratio(*pair, score)
        if ratio.count < 2:  # no interval, and so nothing to judge; the scores are in the table
            continue
        claim = f"GAN: {label}, {names[0]} by {names[1]}"
        effect = Effect(ratio, "more" if more_is_better else "less", 1)
        headline = None
        if score in HEADLINES and names == COMPARED[0]:
            headline = Headline(HEADLINES[score], in_short(results), format_interval(ratio))
        wanted = "more" if more_is_better else "less"
        rows.append(ClaimRow("C3", claim, wanted, format_interval(ratio), ratio.count, setting, effect, headline))
    return rows


def question_rows(results: dict[str, Any], runs: list[Run], setting: str) -> list[ClaimRow]:
    rows, last = [], results["settings"]["epochs"]
    pair = [select(runs, variant=variant) for variant in ("GeoConv", "GeoConv, no shift")]
    if all(pair):
        ratios = {label: score_ratio(*pair, score) for score, (label, _) in DIVERSITY.items()}
        texts = "; ".join(f"{label} {format_interval(ratio)}" for label, ratio in ratios.items())
        claim, seeds = "GAN: diversity with the shift by that without", ratios["Vendi score"].count
        headline = Headline(claim, in_short(results), f"Vendi score {format_interval(ratios['Vendi score'])}")
        rows.append(ClaimRow("Q1", claim, "open", texts, seeds, setting, MEASURED, headline))
    if last >= 1000:
        texts = [f"{variant}: {describe(collapses(results, variant), last)}" for variant in variants_of(results)]
        claim, seeds = "GAN: 1000 epochs and more", len({run["seed"] for run in runs})
        text, paper = "; ".join(texts), "named as a next check"
        headline = Headline(claim, in_short(results), text)
        rows.append(ClaimRow("N3", claim, paper, text, seeds, setting, MEASURED, headline))
    return rows


def describe(found: list[Collapse], last: int) -> str:
    """ "2 of 3 collapsed, at 120, 260; 1 recovered, at 300" or "0 of 3 collapsed by 450"."""
    epochs = sorted(run.collapsed_at for run in found if run.collapsed_at is not None)
    text = f"{len(epochs)} of {len(found)} collapsed"
    text += f", at {', '.join(map(str, epochs))}" if epochs else f" by {last}"
    if recovered := sorted(run.recovered_at for run in found if run.recovered_at is not None):
        text += f"; {len(recovered)} recovered, at {', '.join(map(str, recovered))}"
    never = sum(run.learnt_at is None for run in found)
    return text + (f"; {never} never learnt" if never else "")


def survival_table(results: dict[str, Any]) -> Table:
    """Shares of surviving runs, and how much the epoch of collapse hangs on the criterion."""
    epochs = [epoch for epoch in PAPER_EPOCHS if epoch <= results["settings"]["epochs"]]
    falls = list(results["runs"][0]["collapsed_at_other_falls"])
    header = ["variant", "parameters", "runs", "collapsed at", "recovered at"]
    header += [f"alive at {epoch}" for epoch in epochs]
    header += [f"collapsed at, for a fall to {fall}" for fall in falls]
    rows = []
    for variant in variants_of(results):
        runs, found = select(results["runs"], variant=variant), collapses(results, variant)
        learnt = any(run.learnt_at is not None for run in found)
        shares = [f"{surviving_share(found, epoch):.2f}" if learnt else "-" for epoch in epochs]
        others = [_epochs([run["collapsed_at_other_falls"][fall] for run in runs]) for fall in falls]
        collapsed = any(run.collapsed_at is not None for run in found)
        recovered = _epochs([run.recovered_at for run in found]) if collapsed else "-"
        parameters = sum(runs[0]["parameters"].values())
        cells = (variant, f"{parameters:,}", str(len(runs)), _epochs([run.collapsed_at for run in found]), recovered)
        rows.append((*cells, *shares, *others))
    return Table(header, rows)


def collapse_text(results: dict[str, Any]) -> list[Paragraph]:
    """What the collapsed runs fell from: a fall from next to nothing is another thing than the end of a training."""
    collapsed = [run for run in results["runs"] if run["collapse"]["collapsed_at"] is not None]
    if not collapsed:
        return []
    heights = []
    for run in collapsed:
        courses = zip(run["curves"]["epoch"], run["curves"]["covered"], strict=True)
        heights.append(max(share for epoch, share in courses if epoch < run["collapse"]["collapsed_at"]))
    recovered = sum(run["collapse"]["recovered_at"] is not None for run in collapsed)
    return [
        Paragraph(
            f"The {len(collapsed)} runs that collapsed fell from best shares of {min(heights):.2f} to "
            f"{max(heights):.2f} of the bins, and {recovered} of them recovered: they covered half of that again."
        )
    ]


def _epochs(found: list[int | None]) -> str:
    return ", ".join("never" if epoch is None else str(epoch) for epoch in found)


def score_table(results: dict[str, Any], runs: list[Run]) -> Table:
    known = {name: label for name, label in SCORES.items() if name in runs[0]["scores"]}
    rows = [("real images", *(_number(results["real"].get(name)) for name in known))]
    for variant in variants_of(results):
        found = select(runs, variant=variant)
        rows.append((variant, *(_cell(mean_score(found, name)) for name in known)))
    return Table(("variant", *known.values()), rows)


def _cell(interval: Interval) -> str:
    if interval.value is None or interval.low is None or interval.low == interval.high:
        return _number(interval.value)
    return f"{_number(interval.value)} [{_number(interval.low)}, {_number(interval.high)}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
