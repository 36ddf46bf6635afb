"""Render an image folder of hands or faces with captions, to train on or to compare with."""

import argparse
from functools import partial
from typing import Any

from ..errors import DataError

SUMMARY = "render hands or faces with captions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subjects = parser.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    hands = subjects.add_parser("hands", help="articulated hands", description="Render articulated hands.")
    _add_common(hands)
    hands.add_argument("--views", group="hands", nargs="+", default=None, help="of palm, back, side (default: all)")
    hands.add_argument("--handedness", group="hands", nargs="+", default=None, help="of left, right (default: both)")
    hands.add_argument(
        "--poses", group="hands", default=None, help="canonical (counting gestures), touching or any (default)"
    )
    hands.add_argument(
        "--max-tilt", group="hands", type=float, default=None, metavar="DEGREES", help="lean out of the view (35)"
    )
    hands.add_argument(
        "--max-rotation", group="hands", type=float, default=None, metavar="DEGREES", help="turn in the image (180)"
    )
    hands.add_argument(
        "--defects", group="hands", type=float, default=None, metavar="SHARE", help="of hands not well formed (0)"
    )
    hands.add_argument(
        "--defect-kinds", group="hands", nargs="+", default=None, metavar="KIND", help="such as fused missing (all)"
    )
    hands.add_argument("--placement", group="hands", default=None, help="centre (default), or anywhere in the image")
    hands.add_argument(
        "--scale",
        group="hands",
        type=float,
        nargs=2,
        default=None,
        metavar=("LOW", "HIGH"),
        help="share of the image's side that a hand fills, 0.1 to 1: as --fill, but small hands too",
    )
    hands.add_argument(
        "--hands", group="hands", type=int, nargs="+", default=None, metavar="N", help="in an image: 1, 2 or 1 2 (1)"
    )
    hands.add_argument(
        "--conditioning",
        group="hands",
        nargs="+",
        default=[],
        metavar="KIND",
        help="also write pictures of each hand's skeleton, depth or both, to train a ControlNet on",
    )
    faces = subjects.add_parser("faces", help="heads with expressions", description="Render heads with expressions.")
    _add_common(faces)
    faces.add_argument(
        "--expressions", group="heads", nargs="+", default=None, help='for example smiling "eyes closed" (default: all)'
    )
    faces.add_argument(
        "--ages", group="heads", nargs="+", default=None, help="of child, young, middle-aged, old (default: all)"
    )
    faces.add_argument(
        "--max-yaw", group="heads", type=float, default=None, metavar="DEGREES", help="turn to the sides (50)"
    )
    faces.add_argument(
        "--max-pitch", group="heads", type=float, default=None, metavar="DEGREES", help="look up or down (20)"
    )
    faces.add_argument("--max-roll", group="heads", type=float, default=None, metavar="DEGREES", help="lean (12)")
    mask = subjects.add_parser(
        "mask",
        help="masks of hands for an image folder",
        description="Draw masks of the hands of an image folder, for geopos train --mask-column mask. "
        "Writes masks/, metadata_masked.jsonl and masks_preview.png into the folder.",
    )
    _add_annotated(mask, "keypoints", "masks")
    mask.add_argument(
        "--dilation", type=float, default=0.3, metavar="SHARE", help="reach beyond the bones, in palm lengths (0.3)"
    )
    mask.add_argument("--shape", choices=("skeleton", "hull"), default="skeleton", help="skeleton (default) or hull")
    boxes = subjects.add_parser(
        "boxes",
        help="boxes of hands for an image folder",
        description="Find the boxes of the hands of an image folder, in shares of each image, for frames. "
        "Writes metadata_boxes.jsonl and boxes_preview.png into the folder.",
    )
    _add_annotated(boxes, "detected", "boxes")
    boxes.add_argument(
        "--margin",
        type=float,
        metavar="SHARE",
        help="around the key points, of their longer side (0.09 if detected, else 0.04)",
    )


def _add_annotated(parser: argparse.ArgumentParser, source: str, written: str) -> None:
    """The options of what is found of the hands in an image folder. source: by default."""
    texts = {"keypoints": "of rendered hands", "detected": "of hands that are detected"}
    (other,) = texts.keys() - {source}
    parser.add_argument("folder", metavar="FOLDER", help="image folder with metadata.jsonl")
    parser.add_argument(
        "--from",
        dest="source",
        choices=tuple(texts),
        default=source,
        help=f"{texts[source]} (default), or {texts[other]}",
    )
    parser.add_argument("--overwrite", action="store_true", help=f"replace {written} that are there")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--num-images", dest="count", type=int, required=True, aliases=["--count"], metavar="N", help="images to render"
    )
    parser.add_argument("--size", type=int, default=64, help="pixels a side (64)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes, whatever --num-workers is")
    parser.add_argument(
        "--num-workers", dest="workers", type=int, default=1, aliases=["--workers"], metavar="N", help="processes"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace an output folder that is not empty")
    parser.add_argument("--dry-run", action="store_true", help="check everything and print captions; write nothing")
    parser.add_argument("--backgrounds", default=None, help="plain, gradient or both (default)")
    parser.add_argument(
        "--colours", nargs="+", default=None, aliases=["--colors"], help="names of background colours (all)"
    )
    parser.add_argument(
        "--fill",
        type=float,
        nargs=2,
        default=None,
        metavar=("LOW", "HIGH"),
        help="share of the image's side that is filled",
    )
    parser.add_argument("--samples", type=int, default=None, help="rays per pixel side (2)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> None:
    if args.subject == "mask":
        return _mask(args)
    if args.subject == "boxes":
        return _boxes(args)
    from ..data.image_folder import write_image_folder
    from ..data.options import check_cores, check_count, check_image
    from ..files import check_output

    check_count(args.count)
    check_cores(args.workers)
    check_image(args.size, args.seed)
    check_output(args.output, args.overwrite)
    make_draw = _hands(args) if args.subject == "hands" else _faces(args)
    if args.dry_run:
        for _, attributes in make_draw()(0, min(args.count, 8)):
            print(attributes["text"])
        print(f"would write {args.count} images of {args.size} x {args.size} pixels to {args.output}")
        return
    folder = write_image_folder(
        make_draw, args.count, args.output, args.workers, args.overwrite, progress=not args.quiet
    )
    print(f"wrote {args.count} images and metadata.jsonl to {folder}")


def _given(args: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _hands(args: argparse.Namespace) -> Any:
    from ..data.hand_options import HandOptions
    from ..data.hands import make_draw_hands
    from ..errors import DataError

    names = ("views", "handedness", "poses", "max_tilt", "max_rotation", "backgrounds", "colours", "fill", "samples")
    if args.fill is not None and args.scale is not None:
        raise DataError("give --fill or --scale, not both: each is the share of the image's side that a hand fills")
    options = HandOptions(**_given(args, (*names, "defects", "defect_kinds", "placement", "scale", "hands")))
    return partial(make_draw_hands, args.size, args.seed, options, tuple(args.conditioning))


def _faces(args: argparse.Namespace) -> Any:
    from ..data.faces import FaceOptions, make_draw_faces

    names = ("expressions", "ages", "max_yaw", "max_pitch", "max_roll", "backgrounds", "colours", "fill", "samples")
    return partial(make_draw_faces, args.size, args.seed, FaceOptions(**_given(args, names)))


def _mask(args: argparse.Namespace) -> None:
    from ..data.hand_masks import FindHands, hands_of_row, write_masks

    def write(find_hands: FindHands) -> None:
        counts = write_masks(args.folder, find_hands, args.dilation, args.shape, args.overwrite, not args.quiet)
        print(f"wrote masks of {counts.masked} of {counts.images} images")
        print(f"train with --dataset {args.folder}/metadata_masked.jsonl --mask-column mask")

    if not 0 <= args.dilation <= 10:
        raise DataError(f"dilation is {args.dilation}; give 0 to 10")
    if args.source == "keypoints":
        write(hands_of_row)
        return
    from ..metrics.hand_detection import HandDetector

    with HandDetector(presence=False) as detector:
        write(lambda row, image: [hand.landmarks[:, :2] for hand in detector.detect(image)])


def _boxes(args: argparse.Namespace) -> None:
    from ..data.hand_boxes import BOXED_METADATA, write_boxes
    from ..data.hand_masks import FindHands, hands_of_row
    from ..images.hand_boxes import MARGINS

    def write(find_hands: FindHands) -> None:
        counts = write_boxes(args.folder, find_hands, margin, args.overwrite, not args.quiet)
        without = counts.images - counts.one - counts.several
        found = f"{counts.one} images with one hand, {counts.several} with several, {without} without"
        print(f"wrote {args.folder}/{BOXED_METADATA}: boxes of {found}")

    margin = MARGINS[args.source] if args.margin is None else args.margin
    if not 0 <= margin <= 1:
        raise DataError(f"margin is {margin}; give 0 to 1")
    if args.source == "keypoints":
        write(hands_of_row)
        return
    from ..metrics.hand_detection import HandDetector

    with HandDetector(presence=False) as detector:
        write(lambda row, image: [hand.landmarks[:, :2] for hand in detector.detect(image)])
