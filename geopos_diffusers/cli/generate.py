"""Draw images from prompts: PNG files with their settings in them, metadata.jsonl and a contact sheet."""

import argparse
from typing import Any

SUMMARY = "draw images from prompts, with or without adapters"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..pipelines.loading import DEFAULT_MODEL

    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="packaged model, folder or Hub id (default: %(default)s)"
    )
    parser.add_argument("--geoconv", metavar="ADAPTER", help="GeoConv adapter: folder, safetensors file or Hub id")
    parser.add_argument("--geoconv-scale", type=float, default=1.0, help="strength of the geometry term (default: 1)")
    parser.add_argument(
        "--lora", metavar="LORA", help="LoRA in the diffusers format: folder, safetensors file or Hub id"
    )
    parser.add_argument("--prompt", action="append", metavar="TEXT", help="what to draw; may be given several times")
    parser.add_argument("--prompts-file", metavar="FILE", help="text file with one prompt a line")
    parser.add_argument("--negative-prompt", metavar="TEXT", help="what not to draw")
    parser.add_argument("--num-images", type=int, help="images in all, going round the prompts (default: one a prompt)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the first image; the next has the next (default: 0)"
    )
    parser.add_argument(
        "--inference-steps",
        dest="steps",
        type=int,
        default=25,
        aliases=["--steps"],
        metavar="N",
        help="denoising steps (default: %(default)s)",
    )
    parser.add_argument("--guidance-scale", type=float, help="classifier-free guidance (default: the model's own)")
    parser.add_argument("--height", type=int, help="pixels (default: the model's own size)")
    parser.add_argument("--width", type=int, help="pixels (default: the model's own size)")
    parser.add_argument("--batch-size", type=int, default=8, help="images drawn at a time (default: %(default)s)")
    parser.add_argument("--device", default=None, help="torch device (default: cuda, else mps, else cpu)")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="of the weights")
    parser.add_argument("--compare", action="store_true", help="also draw the base model's image from the same noise")
    parser.add_argument("--output", metavar="DIR", required=True, help="folder for the images; must be new or empty")
    parser.add_argument("--overwrite", action="store_true", help="replace the output folder")


def run(args: argparse.Namespace) -> None:
    from pathlib import Path

    prompts = read_prompts(args.prompt, args.prompts_file)
    check_numbers(args)
    output = Path(args.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())) and not args.overwrite:
        from ..errors import DataError

        raise DataError(f"{output} exists and is not empty; choose another folder or give --overwrite")
    pipe, settings = load(args)
    draw(args, pipe, prompts, settings, output)


def read_prompts(given: list[str] | None, path: str | None) -> list[str]:
    """Prompts of the command line and of the file; DataError where there are none."""
    from pathlib import Path

    from ..errors import DataError
    from ..images.metadata import read_lines

    prompts = list(given or [])
    if path is not None:
        if not Path(path).is_file():
            raise DataError(f"no prompts file {path}")
        prompts += read_lines(path)
    prompts = [prompt.strip() for prompt in prompts if prompt.strip()]
    if not prompts:
        raise DataError("no prompt: give --prompt TEXT or --prompts-file FILE")
    return prompts


def check_numbers(args: argparse.Namespace) -> None:
    from ..errors import ConfigError

    for name in ("num_images", "steps", "batch_size", "height", "width"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be 1 or more; got {value}")
    if not 0 <= args.seed < 2**63:
        raise ConfigError(f"--seed must be between 0 and 2**63 - 1; got {args.seed}")


def load(args: argparse.Namespace):
    """The pipeline with its adapters, and the settings that go into every image."""
    import torch

    from ..adapters.loading import load_geoconv_weights
    from ..errors import AdapterError, ConfigError
    from ..patching.scaling import set_geoconv_scale
    from ..pipelines.loading import load_pipeline, recommended_guidance

    pipe = load_pipeline(args.model, dtype=getattr(torch, args.dtype))
    if args.lora:
        try:
            pipe.load_lora_weights(args.lora, use_safetensors=True)
        except Exception as error:  # diffusers and peft raise many unrelated types for a LoRA that does not fit
            raise AdapterError(f"cannot load LoRA {args.lora!r}: {error}") from error
    if args.geoconv:
        load_geoconv_weights(pipe, args.geoconv)
        set_geoconv_scale(pipe, args.geoconv_scale)
    device = args.device or default_device()
    try:
        pipe.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"cannot use device {device!r}: {str(error).splitlines()[0]}") from error
    if args.guidance_scale is None:
        args.guidance_scale = recommended_guidance(args.model)
    names = ("model", "geoconv", "geoconv_scale", "lora", "negative_prompt", "steps", "guidance_scale", "dtype")
    return pipe, {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def default_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def draw(args: argparse.Namespace, pipe, prompts: list[str], settings: dict, output) -> None:
    """Draw everything into a folder beside `output`, then put it in its place. The base's images go to `base/`."""
    import json
    from contextlib import nullcontext

    from tqdm import tqdm

    from ..files import atomic_directory
    from ..images.contact_sheet import DEFAULT_CELL, contact_sheet
    from ..pipelines.generation import generate_images

    options = {
        name: getattr(args, name)
        for name in (
            "num_images",
            "seed",
            "steps",
            "guidance_scale",
            "negative_prompt",
            "height",
            "width",
            "batch_size",
        )
    }
    versions = ("base", "patched") if args.compare else ("patched",)
    drawn: dict[str, list[Any]] = {}
    total = (args.num_images or len(prompts)) * len(versions)
    with atomic_directory(output) as folder, tqdm(total=total, unit="image", desc="generate") as bar:
        for version in versions:
            target = folder / "base" if version == "base" else folder
            target.mkdir(exist_ok=True)
            with base_only(pipe, args) if version == "base" else nullcontext():
                drawn[version] = []
                for item in generate_images(pipe, prompts, **options):
                    save_png(item, target / f"{item.index:05d}.png", settings | {"version": version})
                    drawn[version].append(item)
                    bar.update()
            write_metadata(target / "metadata.jsonl", drawn[version])
        pictures = [item.image for item in drawn["patched"]]
        if args.compare:
            pictures = [side_by_side(base.image, item) for base, item in zip(drawn["base"], pictures, strict=True)]
        captions = [f"{item.prompt} ({item.seed})" for item in drawn["patched"]]
        contact_sheet(pictures, captions, cell=2 * DEFAULT_CELL if args.compare else None).save(
            folder / "contact_sheet.png"
        )
        (folder / "settings.json").write_text(json.dumps(settings | {"seed": args.seed}, indent=2) + "\n")
    print(f"{len(pictures)} images in {output}; overview: {output / 'contact_sheet.png'}")


def base_only(pipe, args: argparse.Namespace):
    """Within the block the pipeline is the unpatched base: no GeoConv, no LoRA."""
    from contextlib import ExitStack, contextmanager

    from ..patching.scaling import disable_geoconv

    @contextmanager
    def without_lora():
        pipe.disable_lora()
        try:
            yield
        finally:
            pipe.enable_lora()

    stack = ExitStack()
    if args.geoconv:
        stack.enter_context(disable_geoconv(pipe))
    if args.lora:
        stack.enter_context(without_lora())
    return stack


def side_by_side(base, patched):
    """One picture with the base model's image on the left."""
    from PIL import Image

    joined = Image.new("RGB", (base.width + patched.width, base.height))
    joined.paste(base, (0, 0))
    joined.paste(patched, (base.width, 0))
    return joined


def save_png(item, path, settings: dict) -> None:
    """Save a drawn image with its prompt, seed and settings as PNG text chunks."""
    import json

    from PIL.PngImagePlugin import PngInfo

    from .. import __version__

    record = settings | {"prompt": item.prompt, "seed": item.seed, "geopos_diffusers": __version__}
    info = PngInfo()
    info.add_itxt("prompt", item.prompt)
    info.add_itxt("geopos", json.dumps(record, ensure_ascii=False))
    item.image.save(path, pnginfo=info)


def write_metadata(path, drawn: list) -> None:
    """Write the metadata.jsonl that makes a folder of images a data set."""
    import json

    rows = [{"file_name": f"{item.index:05d}.png", "text": item.prompt, "seed": item.seed} for item in drawn]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
