"""The GAN experiment's results from its run folders: one JSON file and the figures beside it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from geopos_diffusers.errors import DataError
from geopos_diffusers.files import atomic_path
from geopos_diffusers.images.contact_sheet import contact_sheet
from geopos_diffusers.training.loss_log import read_losses

from .. import results as results_files
from .arguments import GanArguments
from .collapse import FALL, LEARNT, PATIENCE, find_collapse
from .figures import draw_curves, draw_survival
from .network import variant_title
from .training import run_folder

OTHER_FALLS = (0.25, 0.75)  # how much the epochs of collapse depend on the criterion
FILM_EPOCHS = 8


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
    runs = collect_runs(args)
    files = [target.with_name(f"{target.name}{ending}") for ending in (".json", "-curves.png", "-survival.png")]
    results = results_files.write_results(
        files[0],
        "gan",
        runs,
        {**args.settings(), "epochs": args.epochs},
        data={"name": args.data_name, "images": image_count},
        note=args.note,
        criterion=f"covered < {FALL} x best so far, {PATIENCE} evaluations in a row, after covered >= {LEARNT} once",
        real_note="a random half of the real images scored beside the other half, with half of the bins",
        real={name: _rounded(value) for name, value in real.items()},
    )
    draw_curves(results, files[1])
    draw_survival(results, files[2])
    film = target.with_name(f"{target.name}-film.png")
    if args.publish_samples:
        there = {run["variant"] for run in runs}
        write_film_strip(args, [variant for variant in args.variants if variant_title(variant) in there], film)
        files.append(film)
    return files


def collect_runs(args: GanArguments) -> list[dict[str, Any]]:
    """All figures of the finished runs, JSON-ready and without paths of this machine.

    Raises:
        DataError: no finished run.
    """
    found = [_read_run(run_folder(args.output_dir, variant, seed), args.epochs) for variant in args.variants
             for seed in args.seeds]  # fmt: skip
    if runs := [run for run in found if run is not None]:
        return runs
    raise DataError(f"{args.output_dir} holds no finished run of the variants and seeds that were asked for")


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
        "variant": variant_title(summary["variant"]),
        **{name: summary[name] for name in ("seed", "parameters")},
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


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


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
