"""Repair the hands of images: find them, draw each anew in several variants, and keep what the judge finds best.

The repaired images are written beside, as PNG files; every pixel away from the hands stays as it was, bitwise.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .adapter_options import add_adapter_arguments, check_adapter_arguments
from .box_options import read_image_boxes
from .messages import warn
from .pipeline_options import add_device_arguments, load_with_adapters

if TYPE_CHECKING:
    from ..boxes import Box
    from ..metrics.hand_judge import HandJudge
    from ..repair.options import RepairOptions
    from ..repair.repaired_folder import RepairTask

SUMMARY = "repair the hands of images by inpainting"
REPAIR_MODEL = "hands64-v2"  # of the packaged models the one that knows photographs
PROMPT = "a hand"
BY_HAND = "given"
MUCH = 0.9  # of the square under the mask
RENAMED = {"candidates": "num_candidates", "steps": "inference_steps"}  # fields whose options are called otherwise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..repair.options import DEFAULT_SHARE, RepairOptions

    where, drawing, choice, output = (
        partial(parser.add_argument, group=title) for title in ("where the hands are", "drawing", "choosing", "output")
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, of 8 bits a channel")
    parser.add_argument("--model", default=REPAIR_MODEL, help="packaged model, folder or Hub id (default: %(default)s)")
    add_adapter_arguments(parser)
    where(
        "--box",
        nargs=4,
        type=float,
        action="append",
        metavar=("X0", "Y0", "X1", "Y1"),
        help="a hand's left, upper, right and lower edge as shares of the image, 0 to 1, in place of finding hands; "
        "may be given several times",
    )
    where(
        "--boxes",
        metavar="FILE",
        help="JSON lines with file_name and box or boxes of each image, or, for one image, a box a line",
    )
    where("--skip-unfound", action="store_true", help="leave out images in which no hand is found")
    drawing("--prompt", metavar="TEXT", help=f"what to draw (default: the prompt saved in the image, or {PROMPT!r})")
    drawing("--negative-prompt", metavar="TEXT", help="what not to draw")
    drawing("--strength", type=float, default=RepairOptions.strength, help="of the noise on the old hand (%(default)s)")
    drawing(
        "--margin",
        type=float,
        default=RepairOptions.margin,
        help="drawn anew beyond a hand's box, as a share of its longer side (%(default)s)",
    )
    drawing(
        "--share",
        type=float,
        help="of the side of the square that the model is given, what the hand fills (default: as the frames of the "
        f"adapter's training, or {DEFAULT_SHARE})",
    )
    drawing("--size", type=int, help="side of that square in pixels (default: the model's own)")
    drawing(
        "--inference-steps",
        dest="steps",
        type=int,
        default=RepairOptions.steps,
        aliases=["--steps"],
        metavar="N",
        help="denoising steps, of which --strength takes its share (%(default)s)",
    )
    drawing("--guidance-scale", type=float, help="classifier-free guidance (default: the model's own)")
    drawing("--seed", type=int, default=0, help="seed of a hand's first variant; the next has the next (0)")
    drawing("--batch-size", type=int, default=RepairOptions.batch_size, help="variants at a time (%(default)s)")
    add_device_arguments(drawing)
    choice(
        "--num-candidates",
        type=int,
        default=RepairOptions.candidates,
        metavar="N",
        help="variants of each hand (%(default)s)",
    )
    choice("--only-bad", action="store_true", help="leave hands alone that the judge calls well formed")
    choice("--min-score", type=float, metavar="S", help="leave hands alone to which the judge gives S or more, 0 to 1")
    choice("--allow-worse", action="store_true", help="take the best variant even if the old hand scores better")
    choice("--any-number", action="store_true", help="do not look whether the prompt's number of fingers is raised")
    output("--output", metavar="DIR", required=True, help="folder for the repaired images; must be new or empty")
    output("--overwrite", action="store_true", help="replace the output folder")
    output("--dry-run", action="store_true", help="print the hands that are found, and write nothing")
    output("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> None:
    from ..errors import DataError
    from ..files import check_output
    from ..metrics.hand_judge import load_hand_judge
    from ..repair.repaired_folder import check_names

    options = check_arguments(args)
    paths = [Path(image) for image in args.images]
    output = check_output(args.output, args.overwrite)
    check_names(paths, output)
    boxes = check_boxes(args, paths)
    judge = load_hand_judge()
    tasks = find_tasks(args, paths, boxes, options, judge)
    if not tasks:
        raise DataError("no hand is found in any of the images; say where with --box X0 Y0 X1 Y1")
    if not args.dry_run:
        repair(args, tasks, options, output, judge)


def check_arguments(args: argparse.Namespace) -> "RepairOptions":
    """The options of the repair, before anything is read.

    Raises:
        ConfigError: values out of range, or options that exclude each other.
    """
    from ..errors import ConfigError
    from ..metrics.measure_values import LIKELY
    from ..pipelines.loading import recommended_guidance
    from ..repair.options import RepairOptions

    check_adapter_arguments(args)
    if args.only_bad and args.min_score is not None:
        raise ConfigError(f"give --only-bad or --min-score, not both: --only-bad is --min-score {LIKELY}")
    if args.box and args.boxes is not None:
        raise ConfigError("give --box or --boxes, not both")
    if args.guidance_scale is None:
        args.guidance_scale = recommended_guidance(args.model)
    with options_named():
        return RepairOptions(
            candidates=args.num_candidates,
            strength=args.strength,
            margin=args.margin,
            share=args.share,
            size=args.size,
            steps=args.steps,
            guidance_scale=args.guidance_scale,
            negative_prompt=args.negative_prompt,
            batch_size=args.batch_size,
            seed=args.seed,
            min_score=LIKELY if args.only_bad else args.min_score,
            allow_worse=args.allow_worse,
            any_number=args.any_number,
        )


@contextmanager
def options_named() -> Iterator[None]:
    """Messages that begin with a field of RepairOptions begin with its option instead."""
    from dataclasses import fields

    from ..errors import ConfigError
    from ..repair.options import RepairOptions

    try:
        yield
    except ConfigError as error:
        name, _, rest = str(error).partition(" ")
        if name not in {field.name for field in fields(RepairOptions)}:
            raise
        raise ConfigError(f"--{RENAMED.get(name, name).replace('_', '-')} {rest}") from error


def check_boxes(args: argparse.Namespace, paths: list[Path]) -> "dict[Path, list[Box]]":
    """The boxes that were given, by image; those of images without are to be found.

    Raises:
        ConfigError: boxes that are not valid, or of no image.
        DataError: no such file, or not a text of boxes.
    """
    from ..boxes import check_box

    if args.box:
        return {path: [check_box(box, "--box") for box in args.box] for path in paths}
    return {} if args.boxes is None else read_image_boxes(args.boxes, paths)


def find_tasks(
    args: argparse.Namespace,
    paths: list[Path],
    given: "dict[Path, list[Box]]",
    options: "RepairOptions",
    judge: "HandJudge",
) -> "list[RepairTask]":
    """Read every image once, find the hands of those without boxes, and say where they are.

    Raises:
        DataError: an image that cannot be read, or without a hand, unless these are skipped.
        ConfigError: a box that covers no pixel.
    """
    from contextlib import ExitStack

    from ..boxes import show_box
    from ..errors import DataError
    from ..images.opening import on_white
    from ..metrics.hand_detection import HandDetector
    from ..repair.hand_finding import find_hands
    from ..repair.options import DEFAULT_SHARE
    from ..repair.picture_files import open_picture, prompt_of
    from ..repair.regions import hand_region
    from ..repair.repaired_folder import RepairTask

    tasks = []
    with ExitStack() as closing:
        detector = None
        for path in paths:
            picture = open_picture(path)
            prompt = args.prompt or prompt_of(picture) or PROMPT
            boxes, found_by = given.get(path, []), BY_HAND
            if not boxes:
                detector = detector or closing.enter_context(HandDetector(presence=False))
                boxes, found_by = find_hands(on_white(picture), detector, judge)
            regions = [hand_region(box, picture.size, options.margin, options.share or DEFAULT_SHARE) for box in boxes]
            if any(region.masked_share(picture.size) > MUCH for region in regions):
                warn(
                    f"{path}: the mask covers nearly the whole square, so that the new hand has nothing to fit in with"
                )
            if boxes:
                shown = "; ".join(map(show_box, boxes))
                print(f"{path}: {counted(len(boxes), 'hand')} ({found_by}): {shown}", flush=True)
                tasks.append(RepairTask(path, boxes, found_by, prompt))
            elif args.skip_unfound:
                print(f"{path}: no hand is found; left out", flush=True)
            else:
                raise DataError(f"{path}: no hand is found; say where it is with --box X0 Y0 X1 Y1")
    return tasks


def repair(
    args: argparse.Namespace, tasks: "list[RepairTask]", options: "RepairOptions", output: Path, judge: "HandJudge"
) -> None:
    """Load the pipeline and repair all images into `output`.

    Raises:
        GeoPosError: a model or an adapter that cannot be loaded, or what `repair_image` raises.
    """
    from tqdm import tqdm

    from ..pipelines.prompts import warn_of_unreadable_words
    from ..repair.repaired_folder import SHEET, repair_files

    pipe = load_with_adapters(args)
    warn_of_unreadable_words(pipe, [*(task.prompt for task in tasks), args.negative_prompt or ""])
    names = ("model", "geoconv", "geoconv_scale", "lora", "lora_scale", "dtype")
    settings = {name: value for name in names if (value := getattr(args, name)) not in (None, [])}
    total = sum(len(task.boxes) for task in tasks) * options.candidates
    with options_named(), tqdm(total=total, unit="variant", desc="repair", disable=args.quiet) as bar:
        counts = repair_files(pipe, tasks, output, options, settings, judge=judge, advance=bar.update)
    print(
        f"{counted(counts.hands, 'hand')} in {counted(len(tasks), 'image')}: {counts.replaced} replaced, "
        f"{counts.tried - counts.replaced} kept because no variant scored better, "
        f"{counts.hands - counts.tried} good enough; overview: {output / SHEET}"
    )


def counted(count: int, thing: str) -> str:
    """ "1 hand", "2 hands"."""
    return f"{count} {thing}{'' if count == 1 else 's'}"
