"""Fine-tune, or train from random weights, a UNet2DModel that draws pixels, with or without classes.

    geopos train unconditional --config configs/finetune_unconditional_hands.yaml --dataset D --output O

The run's folder holds what that of every training holds, and validation-*.png. final/ is a pipeline to load where the
whole model was trained, else an adapter.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, DataError
from ..training.loop import Validation
from ..training.processes import run_script
from .denoising import ddpm_scheduler
from .denoising_loss import banded_losses, denoising_losses, held_out_losses
from .denoising_options import DEFAULT_BANDS
from .engine import finetune
from .image_text_data import ImageTextData
from .loading import data_facts, load_data
from .mirrored_captions import mirror_some
from .streaming import StreamedData
from .task import Task
from .trained_parts import save_trained_parts
from .unconditional_arguments import UnconditionalArguments
from .unconditional_models import draw_images, image_size, load_unconditional, new_unconditional, to_channels
from .validation import generating, report_validation_images


class Unconditional(Task[UnconditionalArguments]):
    """Diffusion of pixels.

    classes: how many the data have; 0 without classes.
    """

    ARGUMENTS = UnconditionalArguments
    component = "unet"
    classes = 0

    def load_pipeline(self) -> Any:
        args = self.args
        if args.model is not None:
            pipe = load_unconditional(args.model, args.beta_schedule)
        else:
            pipe = new_unconditional(args.model_config or "", args.beta_schedule)
        self.check_classes(pipe.unet)
        kind = args.prediction_type
        if kind is not None:
            pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type=kind)
        return pipe

    def check_classes(self, unet: Any) -> None:
        """Raise ConfigError unless the model takes classes exactly where the data have a column of them."""
        if unet.config.class_embed_type is not None:
            raise ConfigError(f"models with class_embed_type {unet.config.class_embed_type} cannot be trained here")
        if unet.config.num_class_embeds is None and self.args.class_column is not None:
            raise ConfigError("the model has no classes (num_class_embeds); leave class_column out")
        if unet.config.num_class_embeds is not None and self.args.class_column is None:
            raise ConfigError(f"the model has {unet.config.num_class_embeds} classes; give class_column")

    def build(self) -> None:
        super().build()
        self.noise_scheduler = ddpm_scheduler(self.pipe)
        self.channels = self.pipe.unet.config.in_channels
        self.number_of_classes = self.pipe.unet.config.num_class_embeds or 0
        self.bands = self.args.validation_bands or DEFAULT_BANDS
        self.held_out_kind = f"{self.bands} bands of {self.noise_scheduler.config.prediction_type}"

    def load_data(self) -> ImageTextData | StreamedData:
        data = self.images(None)
        self.data_facts = data_facts(data)
        if self.args.class_column is not None:
            self.classes = self.check_labels(data)
        return data

    def load_validation_data(self, dataset: str) -> ImageTextData | StreamedData:
        data = self.images(dataset)
        if self.args.class_column is not None:
            self.check_labels(data)
        return data

    def images(self, held_out: str | None) -> ImageTextData | StreamedData:
        args = self.args
        resolution = args.resolution or image_size(self.pipe.unet)
        if resolution is None:
            raise ConfigError("the model's configuration has no sample_size; give size")
        multiple = 2 ** (len(self.pipe.unet.config.block_out_channels) - 1)
        if resolution % multiple:
            raise ConfigError(f"size must be a multiple of {multiple} for this model; got {resolution}")
        return load_data(args, resolution, multiple, self.accelerator, held_out)

    def check_labels(self, data: Any) -> int:
        """How many classes the data have: one more than the highest number.

        Raises:
            DataError: the model has fewer, or none to spare for `class_dropout`.
        """
        highest = max(data.records[row].label or 0 for row in data.kept)
        available = self.number_of_classes - (1 if self.args.class_dropout else 0)
        if highest >= available:
            spare = ", of which class_dropout needs the last" if self.args.class_dropout else ""
            raise DataError(
                f"{self.args.class_column} goes up to {highest}; the model has {self.number_of_classes} classes{spare}"
            )
        return highest + 1

    def facts(self) -> dict[str, Any]:
        name = self.args.model or Path(self.args.model_config or "").name
        return {"model": name, "channels": self.channels, "classes": self.classes, **self.data_facts}

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        args = self.args
        if args.random_flip:
            batch = mirror_some(batch, flip_captions=False)
        self.begin_frames(batch)
        pixels = to_channels(batch["pixels"], self.channels)
        labels = batch.get("label")
        if labels is not None and args.class_dropout:
            dropped = torch.rand(len(labels), device=labels.device) < args.class_dropout
            labels = torch.where(dropped, self.number_of_classes - 1, labels)

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return self.model(noisy, timesteps, labels).sample

        return denoising_losses(args, self.noise_scheduler, pixels, predict, batch.get("mask"))

    def validations(self, save: Callable[[Path], None]) -> list[Validation]:
        """The loss on held-out images, and grids of images."""
        found = super().validations(save)
        if self.args.validation_grid:
            found.append(Validation(self.draw, self.args.validation_steps, first=True))
        return found

    def held_out_losses(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        device, labels = self.accelerator.device, batch.get("label")
        pixels = to_channels(batch["pixels"].to(device), self.channels)

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return self.pipe.unet(noisy, timesteps, None if labels is None else labels.to(device)).sample

        with self.in_frames(batch):
            return banded_losses(self.noise_scheduler, pixels, predict, self.bands, generator)

    def draw(self, step: int) -> dict[str, float]:
        """A grid of images from the same noise each time, in the boxes of held-out images if there are frames.

        Returns no scores.
        """
        args, count = self.args, self.args.validation_grid
        boxes = None
        if self.frames is not None:
            data = self.data if self.held_out is None else self.held_out
            boxes = self.frames.of_items(list(data.sample(count)), count)
        labels = [index % self.classes for index in range(count)] if self.classes else None
        with generating(self.pipe, self.accelerator):
            images = draw_images(
                self.pipe,
                count,
                self.data.resolution,
                args.validation_inference_steps,
                args.seed,
                labels,
                args.validation_guidance_scale,
                boxes=boxes,
            )
        captions = None if labels is None else [f"class {label}" for label in labels]
        report_validation_images(images, captions, self.accelerator, args.output_dir, step)
        return {}

    def save(self, folder: Path, facts: dict[str, Any]) -> None:
        """An adapter; or the whole pipeline where the whole model was trained, with an adapter beside it."""
        args = self.args
        card = {"Base model": facts["model"], "Training": facts}
        save_trained_parts(self.pipe, "unet", args.parts, folder, card)
        if "full" in args.parts:
            self.pipe.scheduler.save_pretrained(folder / "scheduler")
            self.pipe.save_config(folder)


def pixel_losses(pipe: Any, data: ImageTextData, seed: int, batch_size: int = 64) -> np.ndarray:
    """Held-out denoising losses [N] of a pipeline of a UNet2DModel in eval mode; see `held_out_losses`."""
    unet, labels = pipe.unet, None
    if data.columns.label:
        labels = torch.tensor([data.records[row].label or 0 for row in data.kept], device=unet.device)

    def clean(part: slice) -> Tensor:
        pixels = torch.stack([data[index]["pixels"] for index in range(part.start, part.stop)])
        return to_channels(pixels.to(unet.device), unet.config.in_channels)

    def predict(part: slice, noisy: Tensor, timesteps: Tensor) -> Tensor:
        return unet(noisy, timesteps, None if labels is None else labels[part]).sample

    scheduler = ddpm_scheduler(pipe)
    return held_out_losses(scheduler, len(data), clean, predict, seed, batch_size)


def main(argv: Sequence[str] | None = None) -> None:
    finetune(Unconditional, argv)


if __name__ == "__main__":  # `geopos train` on several processes
    run_script(main)
