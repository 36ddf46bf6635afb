"""Score images of hands: how many are found, with how many fingers, and how far they are from a reference.

Every figure stands beside that of a reference folder; `geopos data hands` renders one of the same image size.
"""

import argparse
from pathlib import Path

SUMMARY = "score images of hands beside a reference"
ATTRIBUTES = ("fingers", "view", "handedness", "tone")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of images; its metadata.jsonl, if there is one, says what they should show",
    )
    parser.add_argument(
        "--reference", type=Path, required=True, metavar="DIR", help="folder of rendered or real hands to compare with"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("evaluation"), metavar="DIR", help="folder for the report (%(default)s)"
    )
    parser.add_argument("--task", type=Path, metavar="FILE", help="HandLandmarker .task bundle to use in place of ours")
    parser.add_argument("--seed", type=int, default=0, help="seed of intervals and random choices (%(default)s)")
    parser.add_argument("--max-images", type=int, metavar="N", help="score at most N images of each folder")
    parser.add_argument(
        "--match",
        nargs="+",
        choices=ATTRIBUTES,
        default=ATTRIBUTES[:3],
        help="what a reference image must have in common with an image (%(default)s)",
    )
    parser.add_argument(
        "--kid", action="store_true", default=True, help="leave out the kernel distance (saves about half the time)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a report in the output folder")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> None:
    from ..files import check_output
    from ..metrics.evaluation import evaluate_hands
    from ..metrics.report import format_table, write_report

    check_output(args.output, args.overwrite)
    report = evaluate_hands(
        args.images,
        args.reference,
        task=args.task,
        seed=args.seed,
        max_images=args.max_images,
        with_kid=args.kid,
        match_on=args.match,
        progress=not args.quiet,
    )
    paths = write_report(report, args.output)
    print(format_table(report))
    print(f"\nWritten: {', '.join(str(path) for path in paths.values())}")
