"""Score images of hands, whatever made them, beside a reference, and compare models with each other.

Every figure stands beside that of a reference folder; `geopos data hands` renders one of the same image size. Several
folders are compared with the first, image by image where their prompts and seeds or file names agree.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError

if TYPE_CHECKING:
    from ..metrics.evaluation import Evaluation

SUMMARY = "score images of hands beside a reference, and compare models"
ATTRIBUTES = ("fingers", "view", "handedness", "tone")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="folders of images, the baseline first; a metadata.jsonl in one says what its images should show",
    )
    parser.add_argument("--reference", type=Path, metavar="DIR", help="folder of rendered or real hands beside them")
    parser.add_argument(
        "--output", type=Path, default=Path("evaluation"), metavar="DIR", help="folder for the report (%(default)s)"
    )
    parser.add_argument("--names", nargs="+", metavar="NAME", help="names of the folders in the report (their own)")
    parser.add_argument("--max-images", type=int, metavar="N", help="score at most N images of each folder")
    parser.add_argument("--measures", nargs="+", metavar="NAME", help="measures to compute (all that have a value)")
    parser.add_argument(
        "--extractors",
        nargs="+",
        default=["mobilenet"],
        metavar="NAME",
        help="networks for FID, KID and other scores of sets: mobilenet, dinov2, clip, inception (%(default)s)",
    )
    parser.add_argument(
        "--quality",
        action="store_true",
        default=True,
        aliases=["--kid"],
        help="leave out the scores of sets (saves about half the time)",
    )
    parser.add_argument("--judge", action="store_true", default=True, help="leave out the second judge")
    parser.add_argument(
        "--match",
        nargs="+",
        choices=ATTRIBUTES,
        default=ATTRIBUTES[:3],
        help="what a reference image must have in common with an image (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of intervals and random choices (%(default)s)")
    parser.add_argument("--num-workers", type=int, metavar="N", help="processes (one a core)")
    parser.add_argument("--cache", action="store_true", default=True, help="score every image anew")
    parser.add_argument("--task", type=Path, metavar="FILE", help="HandLandmarker .task bundle to use in place of ours")
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print how many images show a difference, from measured rates if folders are given, and write nothing",
    )
    parser.add_argument(
        "--report-only", action="store_true", help="make the table and the page of the report in --output again"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a report in the output folder")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> None:
    from ..files import check_output

    if args.plan and not (args.images or args.reference):
        from ..metrics.power import format_plan

        print(format_plan())
        return
    if args.report_only:
        from ..metrics.report import rewrite_report

        print_written(rewrite_report(args.output))
        return
    check_folders(args)
    if not args.plan:
        check_output(args.output, args.overwrite)
        check_apart(args.output, [*args.images, args.reference])
    evaluate(args)


def evaluate(args: argparse.Namespace) -> None:
    from ..metrics.evaluation import evaluate_hands

    evaluation = evaluate_hands(
        args.images,
        args.reference,
        names=args.names,
        measures=args.measures,
        match_on=args.match,
        extractors=tuple(args.extractors) if args.quality and not args.plan else (),
        judge=args.judge,
        task=args.task,
        max_images=args.max_images,
        seed=args.seed,
        num_workers=args.num_workers,
        use_cache=args.cache,
        progress=not args.quiet,
    )
    if args.plan:
        print(plan_text(evaluation))
        return
    from ..metrics.report import TABLE_FILE, write_report

    paths = write_report(evaluation, args.output)
    print(paths[TABLE_FILE].read_text(encoding="utf-8"))
    print_written(paths)


def plan_text(evaluation: "Evaluation") -> str:
    """How many images show a difference, from the baseline's measured shares and the pairs that were seen to differ.

    Of several other folders, that with the most pairs that differ counts. Shares that were not measured are left out.
    """
    from ..metrics.measures import MEASURES
    from ..metrics.power import format_plan

    scores = evaluation.folders[0].scores
    shares = [name for name in evaluation.measures if MEASURES[name].kind == "share"]
    rates = {name: value for name in shares if (value := scores[name].value) is not None}
    differing: dict[str, float] = {}
    for row in evaluation.comparisons:
        if row.measure in rates and row.pairs and row.wins + row.losses + row.ties == row.pairs:
            differing[row.measure] = max(differing.get(row.measure, 0.0), (row.wins + row.losses) / row.pairs)
    return format_plan(rates or None, differing)


def check_folders(args: argparse.Namespace) -> None:
    """Raises DataError where --images or --reference is missing."""
    missing = [f"--{name}" for name in ("images", "reference") if not getattr(args, name)]
    if missing:
        raise DataError(f"{' and '.join(missing)} missing: give folders, or --plan alone to see how many to make")


def check_apart(output: Path, folders: list[Path]) -> None:
    """Raises DataError where the report's picture would be taken for one of the images the next time."""
    from ..images.metadata import METADATA

    for folder in folders:
        if output.resolve().is_relative_to(folder.resolve()) and not (folder / METADATA).is_file():
            raise DataError(f"the output folder {output} is inside {folder}, whose images are scored; choose another")


def print_written(paths: dict[str, Path]) -> None:
    print(f"Written: {', '.join(str(path) for path in paths.values())}")
