"""Generate images from prompts: PNG files with their settings in them, metadata.jsonl and a contact sheet."""

import argparse
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .adapter_options import (
    add_adapter_arguments,
    check_adapter_arguments,
    describe_adapters,
    without_adapters,
)
from .box_options import add_box_arguments, check_box_arguments, check_trained_with_frames, grid_places
from .messages import confirm, warn
from .pipeline_options import add_device_arguments, load_with_adapters

if TYPE_CHECKING:
    from ..boxes import Box
    from ..pipelines.generation import Generated

SUMMARY = "generate images from prompts, with or without adapters"
WARN_ABOVE, ASK_ABOVE = 2, 8  # times the side that the model is made for
LARGE_SIDE = 4096  # pixels; more than its square may not fit into memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..pipelines.loading import DEFAULT_MODEL

    images, sampling, output = (
        partial(parser.add_argument, group=title) for title in ("what to generate", "sampling", "output")
    )
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="packaged model, folder or Hub id (default: %(default)s)"
    )
    add_adapter_arguments(parser)
    images("--prompt", action="append", metavar="TEXT", help="what to show; may be given several times")
    images("--prompts-file", metavar="FILE", help="text file with one prompt a line")
    images("--negative-prompt", metavar="TEXT", help="what not to show")
    add_box_arguments(parser)
    images(
        "--num-images",
        type=int,
        help="images in all, going round the prompts (default: one a prompt); with --box-grid at every place",
    )
    images("--seed", type=int, default=0, help="seed of the first image; the next has the next (default: 0)")
    sampling(
        "--inference-steps",
        dest="steps",
        type=int,
        default=25,
        aliases=["--steps"],
        metavar="N",
        help="denoising steps (default: %(default)s)",
    )
    sampling("--guidance-scale", type=float, help="classifier-free guidance (default: the model's own)")
    sampling("--height", type=int, help="pixels (default: the model's own size)")
    sampling("--width", type=int, help="pixels (default: the model's own size)")
    sampling("--batch-size", type=int, default=8, help="images generated at a time (default: %(default)s)")
    add_device_arguments(sampling)
    output("--compare", action="store_true", help="also generate the base model's image from the same noise")
    output("--output", metavar="DIR", required=True, help="folder for the images; must be new or empty")
    output("--overwrite", action="store_true", help="replace the output folder")
    output("--yes", action="store_true", help="do not ask before very large images")


def run(args: argparse.Namespace) -> None:
    from ..files import check_output
    from ..pipelines.prompts import warn_of_unreadable_words

    prompts = read_prompts(args.prompt, args.prompts_file)
    check_arguments(args)
    boxes = check_box_arguments(args, prompts)
    output = check_output(args.output, args.overwrite)
    pipe, settings = load(args)
    prompts, boxes = place_prompts(pipe, args, prompts, boxes)
    check_size(pipe, args)
    warn_of_unreadable_words(pipe, [*prompts, args.negative_prompt or ""])
    generate(args, pipe, prompts, boxes, settings, output)


def read_prompts(given: list[str] | None, path: str | None) -> list[str]:
    """Prompts of the command line and of the file; DataError where there are none."""
    from ..errors import DataError
    from ..images.metadata import read_prompts_file

    prompts = [prompt.strip() for prompt in given or [] if prompt.strip()]
    if path is not None:
        prompts += read_prompts_file(path)
    if not prompts:
        raise DataError("no prompt: give --prompt TEXT or --prompts-file FILE")
    return prompts


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse what cannot work, before weights are loaded. Raises GeoPosError."""
    from ..errors import ConfigError
    from ..pipelines.generation import check_text_to_image
    from ..pipelines.loading import pipeline_class

    for name in ("num_images", "steps", "batch_size", "height", "width"):
        value = getattr(args, name)
        if value is not None and value < 1:
            option = "inference-steps" if name == "steps" else name.replace("_", "-")
            raise ConfigError(f"--{option} must be 1 or more; got {value}")
    if not 0 <= args.seed < 2**63:
        raise ConfigError(f"--seed must be between 0 and 2**63 - 1; got {args.seed}")
    if args.guidance_scale is not None and not math.isfinite(args.guidance_scale):
        raise ConfigError(f"--guidance-scale must be a finite number; got {args.guidance_scale}")
    check_adapter_arguments(args)
    if args.compare and not (args.geoconv or args.lora):
        raise ConfigError("--compare needs --geoconv or --lora: without an adapter there is only the base model")
    if (pipeline := pipeline_class(args.model)) is not None:
        check_text_to_image(pipeline)


def place_prompts(
    pipe: Any, args: argparse.Namespace, prompts: list[str], boxes: "list[tuple[Box, ...]] | None"
) -> "tuple[list[str], list[tuple[Box, ...]] | None]":
    """The prompts with their boxes; of a grid, every prompt once for each place.

    Raises:
        ConfigError: there are boxes, but the adapters were trained without frames.
    """
    if boxes is None and args.box_grid is None:
        return prompts, None
    mean = check_trained_with_frames(pipe, args)
    if args.box_grid is None:
        return prompts, boxes
    x0, y0, x1, y1 = boxes[0][0] if boxes else mean
    places: list[tuple[Box, ...]] = [(box,) for box in grid_places(args.box_grid, x1 - x0, y1 - y0)]
    return [prompt for prompt in prompts for _ in places], places * len(prompts)


def check_size(pipe: Any, args: argparse.Namespace) -> None:
    """Warn of sizes that the model was not made for; ask before those that may not fit into memory."""
    from ..pipelines.generation import native_size

    native = native_size(pipe) or (args.height or LARGE_SIDE, args.width or LARGE_SIDE)
    height, width = args.height or native[0], args.width or native[1]
    factor = max(height / native[0], width / native[1])
    far = f"{height}x{width} pixels is {factor:.1f} times the {native[0]}x{native[1]} that the model is made for"
    if height * width > LARGE_SIDE**2:
        confirm(f"{height}x{width} pixels may need more memory than there is", args.yes)
    elif factor > ASK_ABOVE:
        confirm(far, args.yes)
    if factor > WARN_ABOVE:
        warn(f"{far}; images may show things several times, or nothing")


def load(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The pipeline with its adapters, and the settings that go into every image."""
    pipe = load_with_adapters(args)
    names = ("model", "geoconv", "geoconv_scale", "lora", "lora_scale", "negative_prompt", "steps", "guidance_scale")
    values = {name: getattr(args, name) for name in (*names, "dtype", "box", "boxes", "box_grid")}
    values["guided_box"] = args.guided_box or None
    return pipe, {name: value for name, value in values.items() if value not in (None, [])}


def generate(
    args: argparse.Namespace,
    pipe: Any,
    prompts: Sequence[str],
    boxes: "Sequence[tuple[Box, ...]] | None",
    settings: dict,
    output: Any,
) -> None:
    """Generate into a folder beside `output`, then put it in its place. The base model's images go to `base/`."""
    from contextlib import nullcontext

    from tqdm import tqdm

    from ..boxes import show_box
    from ..files import atomic_directory, write_json
    from ..images.box_drawing import draw_boxes
    from ..images.contact_sheet import contact_sheet
    from ..pipelines.generation import generate_images

    places = (args.box_grid or 1) ** 2
    names = ("seed", "steps", "guidance_scale", "negative_prompt", "height", "width", "batch_size")
    options = {name: getattr(args, name) for name in names} | {"boxes": boxes, "images_per_seed": places}
    options["guided_boxes"] = args.guided_box
    options["num_images"] = args.num_images * places if args.num_images else None
    versions = ("base", "patched") if args.compare else ("patched",)
    generated: dict[str, list] = {}
    total = (options["num_images"] or len(prompts)) * len(versions)
    with atomic_directory(output) as folder, tqdm(total=total, unit="image", desc="generate") as bar:
        for version in versions:
            target = folder / "base" if version == "base" else folder
            target.mkdir(exist_ok=True)
            with without_adapters(pipe, args) if version == "base" else nullcontext():
                generated[version] = []
                for item in generate_images(pipe, prompts, **options):
                    save_png(item, target / item.file_name, settings | {"version": version})
                    generated[version].append(item)
                    bar.update()
            write_metadata(target / "metadata.jsonl", generated[version])
        # Base and adapter side by side, each under its name.
        labels = ("base model\n", f"{describe_adapters(args)}\n") if args.compare else ("",)
        rows = list(zip(*generated.values(), strict=True))
        items = [item for row in rows for item in row]
        images = [draw_boxes(item.image, item.boxes) if args.draw_box else item.image for item in items]
        captions = [
            f"{label}{item.prompt} ({item.seed}{''.join(f', box {show_box(box)}' for box in item.boxes)})"
            for row in rows
            for label, item in zip(labels, row, strict=True)
        ]
        columns = args.box_grid
        if args.compare:
            columns = len(versions) * (args.box_grid or max(1, round(math.sqrt(len(rows) / len(versions)))))
        contact_sheet(images, captions, columns).save(folder / "contact_sheet.png")
        write_json(folder / "settings.json", settings | {"seed": args.seed})
    print(f"{len(generated['patched'])} images in {output}; overview: {output / 'contact_sheet.png'}")


def save_png(item: "Generated", path: Path, settings: dict) -> None:
    """Save a generated image with its prompt, seed and settings as PNG text chunks."""
    import json

    from PIL.PngImagePlugin import PngInfo

    from .. import __version__

    shared = {name: value for name, value in settings.items() if name not in ("box", "boxes")}
    record = shared | {"prompt": item.prompt, "seed": item.seed, "geopos_diffusers": __version__} | item.places
    info = PngInfo()
    info.add_itxt("prompt", item.prompt)
    info.add_itxt("geopos", json.dumps(record, ensure_ascii=False, allow_nan=False))
    item.image.save(path, pnginfo=info)


def write_metadata(path: Path, generated: "list[Generated]") -> None:
    """Write the metadata.jsonl that makes a folder of images a data set."""
    import json

    text = "".join(json.dumps(item.row, ensure_ascii=False) + "\n" for item in generated)
    path.write_text(text, encoding="utf-8")
