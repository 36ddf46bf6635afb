"""Images of a class for prior preservation: drawn once by the untrained model, and joined to the training's batches."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..errors import ConfigError, DataError
from ..files import atomic_path, remove_leftovers, write_json, write_text
from ..images.metadata import METADATA
from ..pipelines.generation import Generated, generate_images
from .prior_options import DEFAULT_CLASS_IMAGES
from .text_to_image_arguments import TextToImageArguments
from .validation import generating, sampling_options

SETTINGS = "settings.json"
MANNER = ("steps", "guidance_scale")  # how images are drawn, not what of; a continued run may show others


def draw_class_images(
    pipe: Any,
    args: TextToImageArguments,
    accelerator: Accelerator,
    resolution: int,
    call_arguments: Callable[[list[str]], dict[str, Any]],
) -> Path:
    """The folder class_images of a run, with those images drawn that are not there yet. All processes must call it.

    Processes share the work. An image depends on its number alone, also where a killed run drew some of them.

    Raises:
        ConfigError: the folder holds images of another model, prompt, seed or size, and is not to be overwritten.
    """
    folder, prompt = Path(args.output_dir) / "class_images", args.class_prompt or ""
    options, size = sampling_options(args, resolution), args.train_batch_size
    settings = {"model": args.model, "prompt": prompt, **options}
    before = check_folder(folder, settings, accelerator, args.overwrite)
    options = {name: before.get(name, value) for name, value in options.items()}
    count = args.num_class_images or DEFAULT_CLASS_IMAGES
    names = [Generated(index, prompt, 0, None).file_name for index in range(count)]  # type: ignore[arg-type]
    for start in range(accelerator.process_index * size, count, accelerator.num_processes * size):
        wanted = names[start : start + size]
        if all((folder / name).is_file() for name in wanted):
            continue
        block = {**options, "seed": options["seed"] + start, "batch_size": size, "call_arguments": call_arguments}
        with generating(pipe, accelerator):
            drawn = [item.image for item in generate_images(pipe, [prompt], num_images=len(wanted), **block)]
        for name, image in zip(wanted, drawn, strict=True):
            with atomic_path(folder / name) as temporary:
                image.save(temporary, format="PNG")
    if accelerator.is_main_process:
        rows = ({"file_name": name, args.caption_column: prompt} for name in names)
        write_text(folder / METADATA, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    accelerator.wait_for_everyone()
    return folder


def check_folder(
    folder: Path, settings: dict[str, Any], accelerator: Accelerator, overwrite: bool = False
) -> dict[str, Any]:
    """Make the folder, or see that its images are of the same model, prompt, seed and size.

    Args:
        overwrite: remove images that were drawn with any other settings.

    Returns:
        The settings that the images there were drawn with.
    """
    file = folder / SETTINGS
    if accelerator.is_main_process:
        if folder.is_dir():
            remove_leftovers(folder, r"\d+|metadata|settings")
        if not file.is_file():
            if folder.is_dir() and any(folder.iterdir()):
                raise ConfigError(f"{folder} holds something else than class images of a run; remove it")
            folder.mkdir(parents=True, exist_ok=True)
            write_json(file, settings)
        elif overwrite and differing(read_settings(file), settings):
            for image in folder.glob("*.png"):
                image.unlink()
            write_json(file, settings)
    accelerator.wait_for_everyone()
    before = read_settings(file)
    for name in differing(before, settings):
        if name not in MANNER:
            raise ConfigError(
                f"the images in {folder} were drawn with {name}={json.dumps(before.get(name))}; this run has "
                f"{name}={json.dumps(settings[name])}. Remove that folder for new ones, or add --overwrite"
            )
    return before


def read_settings(file: Path) -> dict[str, Any]:
    """What class images were drawn with. Raises DataError if that is damaged."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{file} is damaged: {error}; remove {file.parent}") from error


def differing(before: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """The names of the settings that were others."""
    return [name for name, value in settings.items() if before.get(name) != value]


def join_batches(batch: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """The items of both batches, one after the other."""
    joined: dict[str, Any] = {}
    for name in batch.keys() & others.keys():
        first, second = batch[name], others[name]
        joined[name] = torch.cat([first, second]) if isinstance(first, Tensor) else [*first, *second]
    return joined


def prior_losses(losses: Tensor, count: int, weight: float) -> dict[str, Tensor]:
    """The losses of a batch whose first `count` items are the data set's and whose others are the class's.

    Args:
        losses: [B].
    """
    instance, prior = losses[:count].mean(), losses[count:].mean()
    return {"loss": instance + weight * prior, "instance_loss": instance, "prior_loss": prior}
