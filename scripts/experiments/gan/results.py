"""The GAN experiment's results from its run folders: one JSON file and the figures beside it."""

import datetime
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from PIL import Image

from geopos_diffusers.errors import DataError
from geopos_diffusers.files import atomic_path, write_json
from geopos_diffusers.images.contact_sheet import contact_sheet
from geopos_diffusers.training.loss_log import read_losses

from ..comparison import FORMAT_VERSION
from ..reported_command import reported_command
from .arguments import GanArguments
from .collapse import FALL, LEARNT, PATIENCE, Collapse, find_collapse, surviving_share
from .training import run_folder

PAPER_EPOCHS = (30, 250, 300, 450, 1000)  # those that the paper names; 30 for CoordConv, 250 to 300 for convolutions
OTHER_FALLS = (0.25, 0.75)  # how much the epochs of collapse depend on the criterion
PANELS = {
    "covered": "share of bins covered",
    "jensen_shannon": "Jensen-Shannon divergence [bit]",
    "recall": "recall",
    "coverage": "coverage",
    "vendi": "Vendi score",
    "ms_ssim": "mean MS-SSIM of pairs",
}
FILM_EPOCHS = 8
COLORS = {"conv": "C0", "coord": "C1", "geo": "C2", "geo-no-shift": "C3", "conv-matched": "C4", "geo-matched": "C5"}


def write_results(args: GanArguments, image_count: int, real: dict[str, float], target: Path) -> list[Path]:
    """Write `target`.json and its figures, `target`-curves.png, -survival.png and, where samples may be published,
    -film.png.

    Args:
        real: what real images reach, by score.

    Returns:
        The files.

    Raises:
        DataError: no finished run.
    """
    results = collect_results(args, image_count, real)
    files = [target.with_name(f"{target.name}{ending}") for ending in (".json", "-curves.png", "-survival.png")]
    write_json(files[0], results)
    draw_curves(results, files[1])
    draw_survival(results, files[2])
    film = target.with_name(f"{target.name}-film.png")
    if args.publish_samples:
        write_film_strip(args, sorted({run["variant"] for run in results["runs"]}, key=args.variants.index), film)
        files.append(film)
    return files


def collect_results(args: GanArguments, image_count: int, real: dict[str, float]) -> dict[str, Any]:
    """All figures of the finished runs, JSON-ready and without paths of this machine."""
    runs = []
    for variant in args.variants:
        for seed in args.seeds:
            if (run := _read_run(run_folder(args.output_dir, variant, seed), args.epochs)) is not None:
                runs.append(run)
    if not runs:
        raise DataError(f"{args.output_dir} holds no finished run of the variants and seeds that were asked for")
    criterion = f"covered < {FALL} x best so far, {PATIENCE} evaluations in a row, after covered >= {LEARNT} once"
    return {
        "format_version": FORMAT_VERSION,
        "experiment": "gan",
        "claims": ["C3", "Q1", "N3"],
        "command": reported_command(sys.argv),
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}",
        "data": {"name": args.data_name, "images": image_count},
        "note": args.note,
        "settings": {**args.settings(), "epochs": args.epochs},
        "criterion": criterion,
        "real_note": "a random half of the real images scored beside the other half, with half of the bins",
        "real": {name: _rounded(value) for name, value in real.items()},
        "cpu_seconds": round(sum(run["cpu_seconds"] for run in runs)),
        "runs": runs,
        "variants": {
            variant: summarise([run for run in runs if run["variant"] == variant])
            for variant in args.variants
            if any(run["variant"] == variant for run in runs)
        },
    }


def _read_run(folder: Path, epochs: int) -> dict[str, Any] | None:
    """A run's summary, what became of it, its curves over the evaluated epochs up to `epochs`, and the scores that only
    some epochs have. None if the run is not that far.
    """
    lines = [line for line in read_losses(folder / "losses.jsonl") if line["epoch"] <= epochs]
    if not (folder / "summary.json").is_file() or not lines or lines[-1]["epoch"] < epochs:
        return None
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    times = {name: lines[-1][name] for name in ("seconds", "cpu_seconds")}
    lines = [line for line in lines if "covered" in line]
    evaluated, covered = ([line[name] for line in lines] for name in ("epoch", "covered"))
    names = [name for name in lines[0] if name not in ("step", "epoch", *times)]
    rare = sorted({name for line in lines for name in line} - {*names, "step", "epoch", *times})
    return {
        **{name: summary[name] for name in ("variant", "seed", "parameters")},
        "epochs": epochs,
        **times,
        "collapse": asdict(find_collapse(evaluated, covered)),
        "collapsed_at_other_falls": {
            str(fall): find_collapse(evaluated, covered, fall=fall).collapsed_at for fall in OTHER_FALLS
        },
        "curves": {"epoch": evaluated, **{name: [_rounded(line[name]) for line in lines] for name in names}},
        "scores_at_some_epochs": {
            name: {str(line["epoch"]): _rounded(line[name]) for line in lines if name in line} for name in rare
        },
    }


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """A variant's runs in short: survival at the paper's epochs, and scores, as means over the last fifth of epochs."""
    collapses = [Collapse(**run["collapse"]) for run in runs]
    scores = {}
    late = [late_scores(run) for run in runs]
    for name in late[0]:
        values = [run[name] for run in late]
        scores[name] = {"mean": _rounded(fmean(values)), "runs": [_rounded(value) for value in values]}
    learnt = sum(collapse.learnt_at is not None for collapse in collapses)
    return {
        "runs": len(runs),
        "parameters": sum(runs[0]["parameters"].values()),
        "learnt": learnt,
        "collapsed": sum(collapse.collapsed_at is not None for collapse in collapses),
        "collapsed_at": [collapse.collapsed_at for collapse in collapses],
        "surviving_share": {
            str(epoch): _rounded(surviving_share(collapses, epoch)) if learnt else None
            for epoch in PAPER_EPOCHS
            if epoch <= runs[0]["epochs"]
        },
        "last_fifth": scores,
    }


def late_scores(run: dict[str, Any]) -> dict[str, float]:
    """Each score's mean over the evaluations in the last fifth of the epochs."""
    epochs = run["curves"]["epoch"]
    courses = {name: dict(zip(epochs, values, strict=True)) for name, values in run["curves"].items()}
    courses |= {
        name: {int(epoch): value for epoch, value in values.items()}
        for name, values in run["scores_at_some_epochs"].items()
    }
    return {
        name: fmean(value for epoch, value in course.items() if epoch > 0.8 * epochs[-1])
        for name, course in courses.items()
        if name != "epoch"
    }


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def draw_curves(results: dict[str, Any], target: Path) -> None:
    """A panel a score: each run thin, the mean of a variant thick, what real images reach dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(2, 3, sharex=True).flat, PANELS.items(), strict=True):
        for variant in results["variants"]:
            curves = [run["curves"] for run in results["runs"] if run["variant"] == variant]
            for curve in curves:
                axes.plot(curve["epoch"], curve[name], color=COLORS[variant], linewidth=0.6, alpha=0.4)
            means = [sum(column) / len(column) for column in zip(*(curve[name] for curve in curves), strict=True)]
            axes.plot(curves[0]["epoch"], means, color=COLORS[variant], linewidth=1.8, label=variant)
        axes.axhline(results["real"][name], color="0.4", linestyle="--", linewidth=1, label="real images")
        axes.set(ylabel=label)
        axes.grid(alpha=0.25)
    for axes in figure.axes[-3:]:
        axes.set(xlabel="epoch")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(f"{results['data']['name']}: samples of fixed latents; thin: single runs, thick: their mean")
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=100, format="png")


def draw_survival(results: dict[str, Any], target: Path) -> None:
    """The share of runs that have not collapsed, over epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    last = results["settings"]["epochs"]
    for number, variant in enumerate(results["variants"]):
        collapses = [Collapse(**run["collapse"]) for run in results["runs"] if run["variant"] == variant]
        epochs = sorted({0, last, *(run.collapsed_at for run in collapses if run.collapsed_at is not None)})
        # Lines that would lie on one another are set apart a little.
        shares = [surviving_share(collapses, epoch) - 0.012 * number for epoch in epochs]
        learnt = sum(run.learnt_at is not None for run in collapses)
        label = f"{variant} ({learnt} of {len(collapses)} runs learnt)"
        axes.step(epochs, shares, where="post", color=COLORS[variant], linewidth=1.8, label=label)
    for epoch in (30, 250, 300, 450):
        axes.axvline(epoch, color="0.8", linewidth=0.8, zorder=0)
    axes.set(xlabel="epoch", ylabel="share of runs not collapsed", ylim=(-0.08, 1.05), xlim=(0, last))
    axes.set_title(results["data"]["name"])
    axes.legend(frameon=False, loc="lower left")
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def write_film_strip(args: GanArguments, variants: Sequence[str], target: Path) -> None:
    """Samples of four fixed latents over epochs, a row a variant, of the first seed."""
    cells, captions = [], []
    for variant in variants:
        folder = run_folder(args.output_dir, variant, args.seeds[0])
        sheets = [sheet for sheet in sorted(folder.glob("samples-*.png")) if _epoch_of(sheet) <= args.epochs]
        if not sheets:
            raise DataError(f"no sample grids of {variant}, seed {args.seeds[0]}")
        # Closer together at the start, where samples change most.
        chosen = {round((len(sheets) - 1) * (number / (FILM_EPOCHS - 1)) ** 1.5) for number in range(FILM_EPOCHS)}
        for sheet in (sheets[index] for index in sorted(chosen)):
            with Image.open(sheet) as opened:
                cells.append(opened.convert("RGB").crop((0, 0, 2 * args.size, 2 * args.size)))
            captions.append(f"{variant}, {_epoch_of(sheet)}")
    strip = contact_sheet(cells, captions, columns=len(cells) // len(variants), cell=4 * args.size)
    with atomic_path(target) as temporary:
        # 256 colours keep the file small; the samples' own colours are few.
        strip.quantize(256).save(temporary, format="PNG", optimize=True)


def _epoch_of(sheet: Path) -> int:
    return int(sheet.stem.removeprefix("samples-"))
