"""Where things go: boxes on the command line, for adapters that were trained with frames."""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..boxes import Box

LARGEST_GRID = 16


def add_box_arguments(parser: argparse.ArgumentParser) -> None:
    place = partial(parser.add_argument, group="where, for a GeoConv adapter that was trained with frames")
    place(
        "--box",
        nargs=4,
        type=float,
        action="append",
        metavar=("X0", "Y0", "X1", "Y1"),
        help="left, upper, right and lower edge as shares of the image, 0 to 1, for all images; again for each further "
        "thing in the image (default: the adapter's mean box)",
    )
    place("--boxes", metavar="FILE", help="for each prompt a line: four numbers, or JSON with a box or several boxes")
    place(
        "--box-grid",
        type=int,
        metavar="N",
        help="make each image at N x N places, from the same noise; as large as --box or the adapter's mean box",
    )
    place(
        "--guided-box",
        action="store_true",
        help="guidance strengthens the boxes too: it compares with the prompt's absence in the adapter's mean box",
    )
    place("--draw-box", action="store_true", help="draw the boxes on the contact sheet")


def check_box_arguments(args: argparse.Namespace, prompts: Sequence[str]) -> list[tuple[Box, ...]] | None:
    """The boxes of each prompt, or of all; None where none are given. Before anything is loaded.

    Raises:
        ConfigError: boxes that are not valid, not one a prompt, without an adapter, or options that exclude each other.
        DataError: no such file, or not a text of boxes.
    """
    from ..boxes import check_boxes
    from ..errors import ConfigError

    given = [f"--{name.replace('_', '-')}" for name in ("box", "boxes", "box_grid") if getattr(args, name) is not None]
    if args.draw_box and not given:
        raise ConfigError("--draw-box needs --box, --boxes or --box-grid: there is no box to draw")
    if args.guided_box and not given:
        raise ConfigError("--guided-box needs --box, --boxes or --box-grid: there is no box to guide to")
    if args.guided_box and args.guidance_scale is not None and args.guidance_scale <= 1:
        raise ConfigError(f"--guided-box needs a --guidance-scale above 1; got {args.guidance_scale:g}")
    if given and not args.geoconv:
        raise ConfigError(f"{given[0]} needs --geoconv: boxes are for adapters that were trained with frames")
    if args.boxes is not None and len(given) > 1:
        raise ConfigError(f"give --boxes or {' and '.join(name for name in given if name != '--boxes')}, not both")
    if args.box_grid is not None and not 1 <= args.box_grid <= LARGEST_GRID:
        raise ConfigError(f"--box-grid must be between 1 and {LARGEST_GRID}; got {args.box_grid}")
    if args.box_grid is not None and len(args.box or ()) > 1:
        raise ConfigError("--box-grid takes one --box, whose size it has")
    if args.box is not None:
        return [check_boxes(args.box, "--box")]
    if args.boxes is None:
        return None
    boxes = read_boxes(args.boxes)
    if len(boxes) != len(prompts):
        raise ConfigError(f"{args.boxes} holds {len(boxes)} boxes for {len(prompts)} prompts; give one for each")
    return boxes


def read_boxes(path: str) -> list[tuple[Box, ...]]:
    """The boxes of each line of a text file: four numbers, a JSON list of them, or a JSON object with a box or boxes.

    Raises:
        DataError: no such file, or not UTF-8 text.
        ConfigError: a line that holds no valid box.
    """
    from ..boxes import check_boxes

    return [check_boxes(row.get("boxes", row.get("box")), f"{place}: box") for place, row in _rows(path)]


def read_image_boxes(path: str, images: Sequence[Path]) -> dict[Path, list[Box]]:
    """The boxes of a text file by image: lines as of `read_boxes`, or JSON objects with several `boxes`.

    A line belongs to the image whose absolute path ends with its `file_name`, part by part: "a/x.png" is meant for
    im/a/x.png and not for im/b/x.png, and "x.png" for either. Without a `file_name` it belongs to the only image. Lines
    of other images, and those without boxes, are left out, so that the rows of a data set serve too.

    Raises:
        DataError: no such file, or not UTF-8 text.
        ConfigError: a box that is not valid, a line that does not say whose it is or suits several images, lines of
            different paths that suit one image, or no boxes of these images.
    """
    from ..boxes import check_box
    from ..errors import ConfigError

    boxes: dict[Path, list[Box]] = {}
    names: dict[Path, Path] = {}
    for place, row in _rows(path):
        owners: Sequence[Path] = images
        if "file_name" in row:
            name = Path(str(row["file_name"]))
            owners = [image for image in images if _ends_with(image, name)]
        elif len(images) > 1:
            raise ConfigError(f"{place} needs a file_name: there are {len(images)} images")
        elif not {"box", "boxes"} & row.keys():
            raise ConfigError(f"{place} has no box")
        values = row.get("boxes", [row["box"]] if "box" in row else [])
        if not isinstance(values, list):
            raise ConfigError(f"{place}: boxes takes a list of boxes; got {values!r:.80}")
        if not values or not owners:
            continue
        if len(owners) > 1:
            raise ConfigError(f"{place}: {name} may be {owners[0]} or {owners[1]}; give more of its path")
        (owner,) = owners
        if "file_name" in row and names.setdefault(owner, name) != name:
            raise ConfigError(f"{place}: {owner} may be {name} or {names[owner]}, and both have boxes; leave one out")
        boxes.setdefault(owner, []).extend(check_box(value, f"{place}: box") for value in values)
    if not boxes:
        raise ConfigError(f"{path} holds no box of {', '.join(image.name for image in images[:5])}")
    return boxes


def _ends_with(image: Path, name: Path) -> bool:
    return Path(os.path.abspath(image)).parts[-len(name.parts) :] == name.parts


def _rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The place ("FILE, line 3") and the object of each line that is not blank; what is none is taken for its box.

    Fields that are null are left out, as if they were absent.

    Raises:
        DataError: no such file, or not UTF-8 text.
    """
    from ..errors import DataError
    from ..images.metadata import place_of_line, read_lines

    if not Path(path).is_file():
        raise DataError(f"no file of boxes {path}")
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        value: Any = line.replace(",", " ").split()
        if line.lstrip().startswith(("{", "[")):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = line.strip()
        row = value if isinstance(value, dict) else {"box": value}
        yield place_of_line(Path(path), number), {key: field for key, field in row.items() if field is not None}


def check_trained_with_frames(pipe: Any, args: argparse.Namespace) -> Box:
    """The mean box of the frames that the loaded adapters were trained with.

    Raises:
        ConfigError: they were trained without.
    """
    from ..errors import ConfigError
    from ..patching.patched_model import geometry_models, present_config

    configs = [present_config(model) for model in geometry_models(pipe).values()]
    frames = [config.default_frame for config in configs if config is not None and config.default_frame is not None]
    if not frames or len(frames) != len(configs):
        raise ConfigError(f"{args.geoconv[0]} was trained without frames: it cannot take a box")
    return frames[0]


def grid_places(count: int, width: float, height: float) -> list[Box]:
    """Boxes of one size at `count` x `count` places, row by row, from edge to edge of the image or in its middle."""
    shares = [index / (count - 1) if count > 1 else 0.5 for index in range(count)]
    corners = [(x * (1 - width), y * (1 - height)) for y in shares for x in shares]
    return [(x, y, min(x + width, 1.0), min(y + height, 1.0)) for x, y in corners]
