"""Controls of the measures of hands: do they see defects, and nothing else?

    python -m scripts.experiments.hand_controls.run --output runs/hand_controls

Renders proper and defective hands. Each measure must get worse with the share of defective hands, must give halves of
one set a difference whose interval holds 0, must not gain from blur, low contrast or JPEG beyond its tolerance, and
must move little with the size of the image. Writes a JSON file and a page beside it. What is there is not made again.
With --measures these alone are controlled, and the results file keeps what it says of the others.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from geopos_diffusers.command_line import Parser
from geopos_diffusers.files import write_text
from geopos_diffusers.metrics.bootstrap import Interval
from geopos_diffusers.metrics.evaluation_cache import EvaluationCache
from geopos_diffusers.metrics.features import EXTRACTOR
from geopos_diffusers.metrics.folder_scoring import score_folders
from geopos_diffusers.metrics.image_folder import list_images
from geopos_diffusers.metrics.image_scoring import ScoringSettings
from geopos_diffusers.metrics.measure_values import ReferenceModel
from geopos_diffusers.metrics.measures import MEASURES, Measure
from geopos_diffusers.metrics.quality import QUALITY, quality_scores
from geopos_diffusers.metrics.records import ScoredFolder
from geopos_diffusers.training.processes import run_script

from ..results import commands_with, read_standing, write_results
from .controls import (
    SHARES,
    SIZE_TOLERANCES,
    dose_curve,
    gain,
    is_monotone,
    null_coverage,
    tolerance,
    worsening,
)
from .data import CHANGES, DEFECTIVE, PROPER, REFERENCE, SIDE, SIZES, changed_copy, render_sets, resize
from .section import page
from .set_controls import halves_without_difference, scores_by_share


def make_sets(args: argparse.Namespace) -> dict[str, Path]:
    """All folders of images by name; changed ones are called after the change."""
    work = Path(args.output)
    drawn = render_sets(work, args.num_images, args.seed, args.num_workers)
    sets = {name: changed_copy(path, work / name, lambda image: resize(SIDE, image)) for name, path in drawn.items()}
    half = args.num_images // 2
    for part in (PROPER, DEFECTIVE):
        for name, change in CHANGES.items():
            sets[f"{part}, {name}"] = changed_copy(sets[part], work / f"{part}-{slug(name)}", change, 0, half)
        for side in SIZES:
            sets[f"{part}, {side} px"] = changed_copy(
                drawn[part], work / f"{part}-{side}-pixels", lambda image, side=side: resize(side, image), 0, half
            )
    return sets


def slug(name: str) -> str:
    return name.replace(" ", "-").replace("%", "").replace(".", "-").lower()


def control_measure(
    measure: Measure, scored: dict[str, ScoredFolder], model: ReferenceModel, args: argparse.Namespace
) -> dict[str, Any]:
    """What the controls say of one measure."""
    sign = 1 if measure.better == "higher" else -1
    values = {name: measure.values(folder, model) for name, folder in scored.items()}
    half = args.num_images // 2
    mixed = np.concatenate([values[PROPER][:half], values[DEFECTIVE][:half]])

    def changed(name: str) -> np.ndarray:
        return np.concatenate([values[f"{PROPER}, {name}"], values[f"{DEFECTIVE}, {name}"]])

    curve = dose_curve(values[PROPER], values[DEFECTIVE], args.num_images, args.draws, args.seed)
    worse = worsening(values[PROPER], values[DEFECTIVE], sign, args.seed)
    allowed = tolerance(mixed, measure.kind)
    gains = {name: gain(mixed, changed(name), sign, args.seed) for name in CHANGES}
    allowed_size = tolerance(mixed, measure.kind, *SIZE_TOLERANCES)
    sizes = {f"{side} px": gain(mixed, changed(f"{side} px"), sign, args.seed) for side in SIZES}
    coverage = null_coverage(values[PROPER], measure.kind, args.draws, args.seed)
    return {
        "variant": measure.name,
        "kind": measure.kind,
        "curve": curve,
        "worsening": vars(worse),
        "null_coverage": coverage,
        "gains": {name: vars(interval) for name, interval in gains.items()},
        "gain_tolerance": allowed,
        "sizes": {name: vars(interval) for name, interval in sizes.items()},
        "size_tolerance": allowed_size,
        "passes": {
            "defects": is_monotone(curve, sign) and worse.low is not None and worse.low > 0,
            "halves": None if coverage is None else coverage >= args.least_coverage,
            "changes": all(within(interval, allowed) for interval in gains.values()),
            "sizes": all(within(interval, allowed_size, both=True) for interval in sizes.values()),
        },
    }


def within(interval: Interval, allowed: float, both: bool = False) -> bool:
    """Whether a gain is at most what is allowed; with `both`, a loss too. A gain that is not defined is none."""
    if interval.value is None:
        return True
    return (abs(interval.value) if both else interval.value) <= allowed


def control_sets(scored: dict[str, ScoredFolder], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Scores of sets of whole images and of crops, for each share of defective hands and for each change."""
    runs = []
    half = args.num_images // 2
    for region in ("images", "crops"):
        features = {name: region_features(folder, region) for name, folder in scored.items()}
        reference = features[REFERENCE]
        count = min(len(features[PROPER]), len(features[DEFECTIVE]))
        curves = scores_by_share(features[PROPER][:count], features[DEFECTIVE][:count], reference, args.seed)
        held = halves_without_difference(features[PROPER], reference, args.set_draws, args.seed)
        first_half = [region_features(scored[name], region, half) for name in (PROPER, DEFECTIVE)]
        before = quality_scores(np.concatenate(first_half), reference, args.seed)
        changes = {
            name: quality_scores(
                np.concatenate([features[f"{PROPER}, {name}"], features[f"{DEFECTIVE}, {name}"]]), reference, args.seed
            )
            for name in (*CHANGES, *(f"{side} px" for side in SIZES))
        }
        for score in before:
            runs.append(
                {
                    "variant": f"{region}/{score}",
                    "kind": "set",
                    "better": QUALITY[score].better,
                    "curve": curves[score],
                    "null_coverage": held[score],
                    "mixed": vars(before[score]),
                    "changes": {name: vars(scores[score]) for name, scores in changes.items()},
                }
            )
    return runs


def region_features(scored: ScoredFolder, region: str, images: int | None = None) -> np.ndarray:
    """Features of whole images or of crops, of the first `images` of a folder."""
    if region == "images":
        return scored.features[EXTRACTOR][:images]
    chosen = scored.crop_index < (len(scored.entries) if images is None else images)
    return scored.crop_features[EXTRACTOR][chosen]


def measure_all(args: argparse.Namespace) -> dict[str, Any]:
    sets = make_sets(args)
    folders = [(name, list_images(path)) for name, path in sets.items()]
    with EvaluationCache(Path(args.output) / "scores.sqlite") as cache:
        scored = dict(
            zip(
                sets,
                score_folders(folders, ScoringSettings(), cache=cache, num_workers=args.num_workers),
                strict=True,
            )
        )
    model = ReferenceModel.of(scored[REFERENCE])
    settings = {
        "images": args.num_images,
        "seed": args.seed,
        "draws": args.draws,
        "set_draws": args.set_draws,
        "side": SIDE,
        "shares": list(SHARES),
        "least_coverage": args.least_coverage,
        "extractor": EXTRACTOR,
    }
    standing = read_standing(args.results, "hand_controls", settings) if args.measures else None
    made = [control_measure(MEASURES[name], scored, model, args) for name in args.measures or MEASURES]
    made += [] if args.measures else control_sets(scored, args)
    runs = {run["variant"]: run for run in [*(standing["runs"] if standing else ()), *made]}
    ranks = {name: rank for rank, name in enumerate(MEASURES)}  # scores of sets come last
    ordered = sorted(runs.values(), key=lambda run: ranks.get(run["variant"], len(ranks)))
    return write_results(args.results, "hand_controls", ordered, settings, commands=commands_with(standing))


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="runs/hand_controls", help="folder of the images and scores (%(default)s)")
    parser.add_argument("--results", default="docs/results/hand_controls.json", help="results file (%(default)s)")
    parser.add_argument(
        "--measures",
        nargs="+",
        choices=list(MEASURES),
        metavar="NAME",
        help="only these, of a results file that stands",
    )
    parser.add_argument("--num-images", type=int, default=300, help="hands of each set (%(default)s)")
    parser.add_argument("--draws", type=int, default=400, help="random draws of each control (%(default)s)")
    parser.add_argument("--set-draws", type=int, default=20, help="the same for scores of sets (%(default)s)")
    parser.add_argument(
        "--least-coverage", type=float, default=0.92, help="share of halves whose interval must hold 0 (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=4000, help="of hands and draws (%(default)s)")
    parser.add_argument("--num-workers", type=int, default=2, help="processes (%(default)s)")
    args = parser.parse_args()
    results = measure_all(args)
    write_text(Path(args.results).with_suffix(".md"), page(results))
    print(f"Written: {args.results}")


if __name__ == "__main__":
    run_script(main)
