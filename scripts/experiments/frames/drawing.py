"""Images of the arms' weights in asked boxes, always from the same noise."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from geopos_diffusers.boxes import Box
from geopos_diffusers.files import atomic_directory, write_text
from geopos_diffusers.finetuning.trained_parts import load_trained_parts
from geopos_diffusers.images.metadata import METADATA
from geopos_diffusers.patching.framing import geoconv_frames
from geopos_diffusers.pipelines.loading import load_pipeline, recommended_guidance

from .arms import Arm
from .box_conditions import load_told, told
from .data import MEAN_BOX, place_words

BATCH = 16
InBoxes = Callable[[Sequence[Box]], AbstractContextManager[None]]


def load_arm(arm: Arm, model: str, folder: Path) -> tuple[Any, InBoxes]:
    """The pipeline with what was trained, and a context in which its images have their boxes."""
    if arm.condition is not None:
        pipe, condition = load_told(model, folder, arm.condition)
        return pipe, lambda boxes: told(condition, torch.tensor(boxes), MEAN_BOX if arm.guided else None)
    pipe = load_pipeline(model)
    load_trained_parts(pipe, folder)
    return pipe, partial(geoconv_frames, pipe, guided=arm.guided) if arm.framed else lambda boxes: nullcontext()


def guidance_of(arm: Arm, model: str) -> float:
    """The guidance that it draws with: its own, what the model recommends, or none."""
    return arm.guidance_scale or recommended_guidance(model) or 1.0


def draw(
    pipe: Any,
    in_boxes: InBoxes,
    prompts: Sequence[str],
    boxes: Sequence[Box],
    seeds: Sequence[int],
    steps: int,
    scale: float,
) -> list[Image.Image]:
    """An image of each prompt in its box, from the noise of its seed."""
    pipe.set_progress_bar_config(disable=True)
    images = []
    for start in range(0, len(prompts), BATCH):
        part = slice(start, start + BATCH)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[part]]
        with in_boxes(boxes[part]):
            drawn = pipe(list(prompts[part]), generator=generators, num_inference_steps=steps, guidance_scale=scale)
        images += drawn.images
    return images


def prompt_of(arm: Arm, text: str, box: Box) -> str:
    """What the arm is told in words."""
    return f"{place_words(box)}, {text}" if arm.placed_text else text


def draw_folder(
    arm: Arm, model: str, trained: Path, rows: Sequence[dict[str, Any]], folder: Path, steps: int, scale: float
) -> Path:
    """Write the images of all rows ("text" and "box"), or take those that are there."""
    if folder.is_dir():
        return folder
    pipe, in_boxes = load_arm(arm, model, trained)
    boxes = [tuple(row["box"]) for row in rows]
    prompts = [prompt_of(arm, row["text"], box) for row, box in zip(rows, boxes, strict=True)]
    images = draw(pipe, in_boxes, prompts, boxes, range(len(rows)), steps, scale)
    with atomic_directory(folder) as target:
        lines = []
        for number, (image, row, prompt) in enumerate(zip(images, rows, prompts, strict=True)):
            name = f"{number:05d}.png"
            image.save(target / name)
            kept = {key: row[key] for key in ("box", "fingers", "handedness")}
            lines.append(json.dumps({"file_name": name, "text": prompt, **kept}) + "\n")
        write_text(target / METADATA, "".join(lines))
    return folder
