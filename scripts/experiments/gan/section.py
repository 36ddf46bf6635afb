"""Claim C3 and questions Q1 and N3: when GANs collapse, and how diverse and how real their samples are."""

from typing import Any

from geopos_diffusers.metrics.bootstrap import Interval

from ..page import ClaimRow, Paragraph, Picture, Place, Section, Table, format_interval
from ..results import KIND_NAMES, Run, mean_interval, ratio_interval, select
from .collapse import Collapse, surviving_share
from .results import draw_curves, draw_survival, late_scores

NAMES = KIND_NAMES | {
    "geo-no-shift": "GeoConv without shift",
    "conv-matched": "convolution, matched",
    "geo-matched": "GeoConv, matched",
}
# Which variant's scores are shown by which other's.
COMPARED = (("geo", "conv"), ("geo", "coord"), ("geo-matched", "conv-matched"))
# The paper's epochs by which all runs of a variant have collapsed, and the one that GeoConv's runs survive.
COLLAPSE_EPOCHS = {"coord": 30, "conv": 300}
SURVIVED_EPOCH = 450
# Scores of the claim, and whether more of it is better.
DIVERSITY = {"vendi": ("Vendi score", True), "covered": ("share of covered bins", True), "recall": ("recall", True)}
REALISM = {"jensen_shannon": ("Jensen-Shannon divergence", False), "mobilenet_kid": ("KID-MobileNetV2", False)}
SCORES = {
    "covered": "bins covered",
    "jensen_shannon": "JS divergence [bit]",
    "recall": "recall",
    "coverage": "coverage",
    "vendi": "Vendi score",
    "ms_ssim": "MS-SSIM",
    "mobilenet_kid": "KID-MobileNetV2",
}


def collapse_verdict(collapses: list[Collapse], epoch: int) -> str:
    """reproduced: all runs that learnt collapsed by `epoch` for good; in part: some collapsed; else not reproduced."""
    learnt = [run for run in collapses if run.learnt_at is not None]
    if learnt and surviving_share(collapses, epoch) == 0 and all(run.recovered_at is None for run in learnt):
        return "reproduced"
    return "in part" if any(run.collapsed_at is not None for run in learnt) else "not reproduced"


def survival_verdict(geo: list[Collapse], others: list[Collapse], epoch: int) -> str:
    """reproduced: all of GeoConv's runs learnt and survive `epoch`, and no other run does.

    in part: they survive, and so do some of the others; else not reproduced.
    """
    if any(run.learnt_at is None for run in geo) or surviving_share(geo, epoch) < 1:
        return "not reproduced"
    return "reproduced" if surviving_share(others, epoch) == 0 else "in part"


def ratio_verdict(ratio: Interval, more_is_better: bool) -> str:
    """reproduced: the whole interval is on the better side of 1."""
    if ratio.low is None or ratio.high is None:
        return "not reproduced"
    return "reproduced" if (ratio.low > 1 if more_is_better else ratio.high < 1) else "not reproduced"


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
            "fifth of the epochs; ratios resample seeds in pairs, and from so few seeds such intervals are too narrow. "
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
    there, last = list(results["variants"]), results["settings"]["epochs"]
    setting = f"{results['data']['name']}; {last} epochs"
    rows = []
    for variant, epoch in COLLAPSE_EPOCHS.items():
        if variant in there and last >= epoch:
            found = collapses(results, variant)
            rows.append(
                ClaimRow(
                    "C3", f"GAN: {NAMES[variant]} collapses", f"within {epoch} epochs", describe(found, last),
                    len(found), setting, collapse_verdict(found, epoch),
                )
            )  # fmt: skip
    found = collapses(results, "geo") if "geo" in there else []
    if found and (last >= SURVIVED_EPOCH or any(run.collapsed_at is not None for run in found)):
        others = [run for variant in COLLAPSE_EPOCHS if variant in there for run in collapses(results, variant)]
        rows.append(
            ClaimRow(
                "C3", "GAN: GeoConv does not collapse, the others do", f"not within {SURVIVED_EPOCH} epochs",
                describe(found, last), len(found), setting, survival_verdict(found, others, SURVIVED_EPOCH),
            )
        )  # fmt: skip
    for score, (label, more_is_better) in (DIVERSITY | REALISM).items():
        wanted = "more" if more_is_better else "less"
        for names in COMPARED:
            if {*names} <= {*there} and score in runs[0]["scores"]:
                pair = [select(runs, variant=variant) for variant in names]
                seeds = len({run["seed"] for run in pair[0]} & {run["seed"] for run in pair[1]})
                if seeds < 2:  # no interval, and so nothing to judge; the scores are in the table
                    continue
                ratio = ratio_interval(*pair, score)
                claim = f"GAN: {label}, {NAMES[names[0]]} by {NAMES[names[1]]}"
                verdict = ratio_verdict(ratio, more_is_better)
                rows.append(ClaimRow("C3", claim, wanted, format_interval(ratio), seeds, setting, verdict))
    if {"geo", "geo-no-shift"} <= {*there}:
        pair = [select(runs, variant=variant) for variant in ("geo", "geo-no-shift")]
        texts = [f"{label} {format_interval(ratio_interval(*pair, score))}" for score, (label, _) in DIVERSITY.items()]
        claim = "GAN: diversity with the shift by that without"
        rows.append(ClaimRow("Q1", claim, "open", "; ".join(texts), len(pair[0]), setting, "measured"))
    if last >= 1000:
        texts = [f"{NAMES[variant]}: {describe(collapses(results, variant), last)}" for variant in there]
        seeds = len({run["seed"] for run in runs})
        claim = "GAN: 1000 epochs and more"
        rows.append(ClaimRow("N3", claim, "named as a next check", "; ".join(texts), seeds, setting, "measured"))
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
    epochs = list(next(iter(results["variants"].values()))["surviving_share"])
    falls = list(results["runs"][0]["collapsed_at_other_falls"])
    header = [
        "variant",
        "parameters",
        "runs",
        "collapsed at",
        "recovered at",
        *(f"alive at {epoch}" for epoch in epochs),
    ]
    header += [f"collapsed at, for a fall to {fall}" for fall in falls]
    rows = []
    for variant, values in results["variants"].items():
        shares = ["-" if share is None else f"{share:.2f}" for share in values["surviving_share"].values()]
        runs = select(results["runs"], variant=variant)
        others = [_epochs([run["collapsed_at_other_falls"][fall] for run in runs]) for fall in falls]
        recovered = [run["collapse"]["recovered_at"] for run in runs]
        cells = (NAMES[variant], f"{values['parameters']:,}", str(values["runs"]), _epochs(values["collapsed_at"]))
        cells += ("-" if values["collapsed"] == 0 else _epochs(recovered),)
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
    for variant in results["variants"]:
        found = select(runs, variant=variant)
        rows.append((NAMES[variant], *(_cell(mean_interval(found, name)) for name in known)))
    return Table(("variant", *known.values()), rows)


def _cell(interval: Interval) -> str:
    if interval.value is None or interval.low is None or interval.low == interval.high:
        return _number(interval.value)
    return f"{_number(interval.value)} [{_number(interval.low)}, {_number(interval.high)}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
