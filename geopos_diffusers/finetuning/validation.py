"""Images drawn while training: always from the same noise, and without a trace in the training's random numbers."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image

from ..errors import DataError
from ..files import atomic_path
from ..images.contact_sheet import contact_sheet
from ..images.metadata import read_prompts_file
from ..pipelines.generation import denoiser_of
from ..pipelines.loading import recommended_guidance
from .denoising_options import PromptArguments

VALIDATION_GUIDANCE = 5.0  # of models that recommend none


@contextmanager
def generating(pipe: Any, accelerator: Accelerator) -> Iterator[None]:
    """Within the block the denoiser is in eval mode and computes in the run's precision; no random number is lost."""
    with evaluating(denoiser_of(pipe), accelerator):
        yield


@contextmanager
def evaluating(model: torch.nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """The same for any model."""
    was_training = model.training
    model.eval()
    try:
        with untouched_randomness(accelerator), accelerator.autocast():
            yield
    finally:
        model.train(was_training)


def untouched_randomness(accelerator: Accelerator) -> AbstractContextManager[None]:
    """Around what may draw from torch's global random numbers, which are the training's."""
    device = accelerator.device
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def evaluation_prompts(args: PromptArguments) -> list[str]:
    """The prompts of the evaluations; none where there are no evaluations.

    Raises:
        DataError: the file is missing, empty or not UTF-8 text.
    """
    if args.evaluation_prompts is None:
        return []
    prompts = read_prompts_file(args.evaluation_prompts)
    if not prompts:
        raise DataError(f"the evaluation's prompts file {args.evaluation_prompts} is empty; give one prompt a line")
    return prompts


def sampling_options(args: PromptArguments, resolution: int) -> dict[str, Any]:
    """How `generate_images` makes images while training."""
    return {
        "seed": args.seed,
        "steps": args.validation_inference_steps,
        "guidance_scale": guidance_scale(args),
        "height": resolution,
        "width": resolution,
    }


def guidance_scale(args: Any) -> float:
    """What was asked for, else the model's own."""
    scale = args.validation_guidance_scale
    if scale is None:
        scale = recommended_guidance(args.model)
    return VALIDATION_GUIDANCE if scale is None else scale


def report_validation_images(
    images: Sequence[Image.Image],
    prompts: Sequence[str] | None,
    accelerator: Accelerator,
    folder: str | Path,
    step: int,
    **layout: int,
) -> Path:
    """Write `validation-{step}.png`, a grid, captioned or not, and send the images to the trackers that take images.

    layout: of `contact_sheet`.
    """
    target = Path(folder) / f"validation-{step:06d}.png"
    with atomic_path(target) as temporary:
        contact_sheet(images, prompts, **layout).save(temporary, format="PNG")
    for tracker in accelerator.trackers:
        if hasattr(tracker, "log_images"):
            form = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images(stacked_by_size(images), step=step, **form)
    return target


def stacked_by_size(images: Sequence[Image.Image]) -> dict[str, np.ndarray]:
    """Stacks [N, H, W, C] by name: "validation" of images of one size, else one for each size, named after it."""
    stacks: dict[tuple[int, int], list[np.ndarray]] = {}
    for image in images:
        stacks.setdefault(image.size, []).append(np.asarray(image))
    if len(stacks) == 1:
        return {"validation": np.stack(stacks[images[0].size])}
    return {f"validation {width}x{height}": np.stack(stack) for (width, height), stack in stacks.items()}
