"""Images drawn while training: always from the same noise, and without a trace in the training's random numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image

from ..files import atomic_path
from ..images.contact_sheet import contact_sheet


def draw_validation_images(
    pipe: Any,
    prompts: Sequence[str],
    accelerator: Accelerator,
    seed: int,
    resolution: int,
    inference_steps: int,
    guidance_scale: float,
) -> list[Image.Image]:
    """One image a prompt; prompt i starts from the noise of seed + i. The UNet is in eval mode meanwhile."""
    device = accelerator.device
    pipe.set_progress_bar_config(disable=True)
    was_training = pipe.unet.training
    pipe.unet.eval()
    images = []
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), accelerator.autocast():
            for index, prompt in enumerate(prompts):
                result = pipe(
                    prompt,
                    height=resolution,
                    width=resolution,
                    num_inference_steps=inference_steps,
                    guidance_scale=guidance_scale,
                    generator=torch.Generator().manual_seed(seed + index),
                )
                images.append(result.images[0])
    finally:
        pipe.unet.train(was_training)
    return images


def report_validation_images(
    images: Sequence[Image.Image], prompts: Sequence[str], accelerator: Accelerator, folder: str | Path, step: int
) -> Path:
    """Write `validation-{step}.png`, a captioned grid, and send the images to the trackers that take images."""
    target = Path(folder) / f"validation-{step:06d}.png"
    with atomic_path(target) as temporary:
        contact_sheet(images, prompts).save(temporary, format="PNG")
    pixels = np.stack([np.asarray(image) for image in images])
    for tracker in accelerator.trackers:
        if hasattr(tracker, "log_images"):
            layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"validation": pixels}, step=step, **layout)
    return target
