"""Train a ControlNet: a copy of the first half of a frozen UNet that learns to draw under a conditioning image.

    geopos train controlnet --config configs/finetune_controlnet_hands.yaml --dataset D --output O

The run's folder holds what that of every training holds, and validation-*.png, each with the conditions beside what was
drawn under them. With --keypoints_column the joint error of drawn hands is measured too.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from ..errors import ConfigError
from ..optional_packages import require_package
from ..pipelines.loading import load_pipeline
from ..training.loop import Validation
from ..training.processes import run_script
from .cached_data import CachedData
from .controlnet_arguments import ControlNetArguments
from .controlnet_models import add_controlnet, draw_conditioned, predict_conditioned
from .denoising import ddpm_scheduler
from .denoising_loss import banded_losses, denoising_losses, held_out_losses
from .denoising_options import DEFAULT_BANDS
from .engine import finetune
from .flow_matching import is_flow_matching
from .image_text_data import ImageTextData
from .latent_cache import cache_latents
from .latents import encode_moments, sample_latents, scale_latents
from .loading import check_size, data_facts, load_data
from .mirrored_captions import mirror_some
from .supported_pipelines import CLIP_PIPELINES, check_supported
from .task import Task
from .text_conditions import CaptionEncoder, warn_of_long_captions
from .validation import evaluating, guidance_scale, report_validation_images


class ControlNet(Task[ControlNetArguments]):
    """Latent diffusion under captions and conditioning images; the UNet, autoencoder and text encoders stay.

    base: the pipeline without the ControlNet. scores: the last joint errors.
    """

    ARGUMENTS = ControlNetArguments
    component = "controlnet"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.scores: dict[str, float] = {}

    def check_packages(self) -> None:
        if self.args.keypoints_column is not None:
            require_package("mediapipe", "eval", "keypoints_column")

    def load_pipeline(self) -> Any:
        args = self.args
        self.base: Any = load_pipeline(args.model, dtype=torch.float32)
        check_supported(self.base, CLIP_PIPELINES)
        if is_flow_matching(self.base.scheduler):
            raise ConfigError("models of flow matching cannot be trained with a ControlNet here")
        if args.prediction_type is not None:
            kind, scheduler = args.prediction_type, self.base.scheduler
            self.base.register_modules(scheduler=type(scheduler).from_config(scheduler.config, prediction_type=kind))
        return add_controlnet(self.base, args.controlnet)

    def build(self) -> None:
        super().build()
        self.noise_scheduler = ddpm_scheduler(self.pipe)
        self.encode_captions = CaptionEncoder(self.base, self.accelerator.device)
        self.bands = self.args.validation_bands or DEFAULT_BANDS
        self.held_out_kind = f"{self.bands} bands of {self.noise_scheduler.config.prediction_type}"

    def load_data(self) -> ImageTextData:
        data = self.images(None)
        warn_of_long_captions(self.base, data.some_captions())
        self.data_facts = data_facts(data)
        return data

    def load_validation_data(self, dataset: str) -> ImageTextData:
        return self.images(dataset)

    def images(self, held_out: str | None) -> ImageTextData:
        base = self.base
        resolution = self.args.resolution or base.unet.config.sample_size * base.vae_scale_factor
        unit = base.vae_scale_factor * 2 ** (len(base.unet.config.block_out_channels) - 1)
        check_size(resolution, unit)
        return cast(ImageTextData, load_data(self.args, resolution, unit, self.accelerator, held_out))

    def facts(self) -> dict[str, Any]:
        return {"controlnet": self.args.controlnet or "new, with the UNet's weights", **self.data_facts}

    def prepare_data(self) -> None:
        args, images = self.args, self.data
        if args.cache_latents:
            folder = Path(args.latents_folder or Path(args.output_dir) / "latents")
            batch, workers = args.train_batch_size, args.num_workers
            latents = cache_latents(images, self.pipe.vae, self.accelerator, folder, batch, workers)
            self.data = CachedData(images, latents)

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        args = self.args
        if args.random_flip:
            batch = mirror_some(batch, args.flip_captions)
        self.begin_frames(batch)
        moments = batch["moments"] if "moments" in batch else encode_moments(self.pipe.vae, batch["pixels"])
        latents = sample_latents(self.pipe.vae, moments)
        conditions = self.encode_captions(batch["caption"], batch["sizes"], args.caption_dropout)
        predict = partial(predict_conditioned, self.pipe.unet, self.model, conditions, batch["conditioning"])
        return denoising_losses(args, self.noise_scheduler, latents, predict, batch.get("mask"))

    def prepare_held_out(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Latents [B, C, h, w], each the mode of its distribution, in the place of images."""
        mean = encode_moments(self.pipe.vae, batch["pixels"].to(self.accelerator.device)).chunk(2, dim=1)[0]
        names = ("caption", "sizes", "conditioning", "box")
        kept: dict[str, Any] = {name: batch[name] for name in names if name in batch}
        return {"latents": scale_latents(self.pipe.vae, mean), **kept}

    def held_out_losses(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        conditions = self.encode_captions(batch["caption"], batch["sizes"])
        conditioning = batch["conditioning"].to(self.accelerator.device)
        predict = partial(predict_conditioned, self.pipe.unet, self.pipe.controlnet, conditions, conditioning)
        with self.in_frames(batch):
            return banded_losses(self.noise_scheduler, batch["latents"], predict, self.bands, generator)

    def validations(self, save: Callable[[Path], None]) -> list[Validation]:
        """The loss on held-out images, grids of drawn images, and their joint error."""
        args, found = self.args, super().validations(save)
        if args.validation_grid:
            found.append(Validation(self.draw_grid, args.validation_steps, first=True))
        if args.keypoints_column is not None:
            found.append(Validation(self.measure_joints, args.validation_steps, first=True))
        return found

    def draw_grid(self, step: int) -> dict[str, float]:
        """Conditions beside what was drawn under them, from the same noise each time. Returns no scores."""
        items = self.shown(self.args.validation_grid)
        conditions, captions = [as_image(item["conditioning"]) for item in items], [item["caption"] for item in items]
        images = self.draw(items)
        pairs = [image for pair in zip(conditions, images, strict=True) for image in pair]
        texts = [text for caption in captions for text in ("condition", caption)]
        report_validation_images(pairs, texts, self.accelerator, self.args.output_dir, step)
        return {}

    def measure_joints(self, step: int) -> dict[str, float]:
        """The joint error of hands that are drawn under held-out, else under the training's, conditions."""
        from .joint_scores import JointScorer, summarise  # with `metrics`, which other runs do not need

        items = self.shown(self.args.joint_error_images)
        images = self.draw(items)
        data = self.held_out or getattr(self.data, "images", self.data)  # of cached latents
        keypoints = [data.keypoints(int(item["row"]), item["sizes"]) for item in items]
        scorer = JointScorer()
        try:
            self.scores = summarise(scorer.errors(images, keypoints))
        finally:
            scorer.close()
        return self.scores

    def shown(self, count: int) -> list[dict[str, Any]]:
        """The first items of what is held out, else of the training's data."""
        data = self.held_out or self.data
        return [data[index] for index in range(min(count, len(data)))]

    def draw(self, items: Sequence[dict[str, Any]]) -> list[Image.Image]:
        """An image for each item, under its caption and condition and in its box."""
        args = self.args
        captions, conditions = [item["caption"] for item in items], [as_image(item["conditioning"]) for item in items]
        boxes = None if self.frames is None else self.frames.of_items(items, len(items))
        with evaluating(self.pipe.controlnet, self.accelerator):
            return draw_conditioned(
                self.pipe, captions, conditions, args.seed, args.validation_inference_steps, guidance_scale(args),
                boxes=boxes,
            )  # fmt: skip

    def finish(self) -> dict[str, Any]:
        return {**super().finish(), **({"scores": self.scores} if self.scores else {})}


def conditioned_losses(base: Any, controlnet: Any, data: ImageTextData, seed: int, batch_size: int = 32) -> np.ndarray:
    """Held-out denoising losses [N] of a pipeline with a ControlNet, both in eval mode; see `held_out_losses`."""
    scheduler = ddpm_scheduler(base)
    encode, device = CaptionEncoder(base, base.unet.device), base.unet.device

    def batch(part: slice) -> dict[str, Any]:
        return default_collate([data[index] for index in range(part.start, part.stop)])

    def clean(part: slice) -> Tensor:
        mean = encode_moments(base.vae, batch(part)["pixels"].to(device)).chunk(2, dim=1)[0]
        return scale_latents(base.vae, mean)

    def predict(part: slice, noisy: Tensor, timesteps: Tensor) -> Tensor:
        chosen = batch(part)
        conditions = encode(chosen["caption"], chosen["sizes"])
        picture = chosen["conditioning"].to(device)
        return predict_conditioned(base.unet, controlnet, conditions, picture, noisy, timesteps)

    return held_out_losses(scheduler, len(data), clean, predict, seed, batch_size)


def as_image(conditioning: Tensor) -> Image.Image:
    """[3, H, W] in [0, 1] as an RGB image."""
    return Image.fromarray((conditioning * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def main(argv: Sequence[str] | None = None) -> None:
    finetune(ControlNet, argv)


if __name__ == "__main__":  # `geopos train` on several processes
    run_script(main)
