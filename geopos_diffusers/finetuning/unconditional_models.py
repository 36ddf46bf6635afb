"""Pipelines of UNet2DModels: loaded, or built around a bare or a new model; and images drawn from them."""

import json
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from PIL import Image
from torch import Tensor

from ..boxes import Box
from ..errors import ConfigError, GeoPosError
from ..patching.framing import boxes_of_batch
from ..pipelines.loading import load_pipeline
from .denoising import ddpm_scheduler

CHANNELS = {1: "L", 3: "RGB"}


def load_unconditional(model: str, beta_schedule: str | None = None) -> Any:
    """A pipeline with a UNet2DModel that works on pixels; a bare model becomes a DDPMPipeline.

    Args:
        model: folder or Hub id of either. beta_schedule: of a bare model's noise, DDPM's by default.

    Raises:
        GeoPosError: it cannot be loaded. ConfigError: a model of another kind.
    """
    config = model_config_of(model)
    if config is not None:
        try:
            unet = UNet2DModel.from_pretrained(model, use_safetensors=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise GeoPosError(f"cannot load the UNet2DModel {model}: {error}") from error
        return pipeline_of(unet, beta_schedule)
    pipe = load_pipeline(model, dtype=torch.float32)
    name, unet = type(pipe).__name__, getattr(pipe, "unet", None)
    if not isinstance(unet, UNet2DModel) or hasattr(pipe, "vae") or hasattr(pipe, "vqvae"):
        raise ConfigError(f"{name} cannot be trained here; supported are pipelines of a UNet2DModel that draws pixels")
    ddpm_scheduler(pipe)  # refuses other noise
    if beta_schedule is not None:
        raise ConfigError(f"beta_schedule is for models without a scheduler; {model} has one")
    check_channels(unet)
    return pipe


def model_config_of(model: str) -> dict[str, Any] | None:
    """The configuration of a bare model; None of a pipeline, or where there is neither.

    Raises:
        ConfigError: a bare model of another class.
    """
    if (Path(model) / "model_index.json").is_file() or not (Path(model).is_dir() or model.count("/") == 1):
        return None
    try:
        config = UNet2DModel.load_config(model)
    except (OSError, ValueError):
        return None
    if "_diffusers_version" in config and config.get("_class_name") != "UNet2DModel":
        raise ConfigError(f"{model} holds a {config.get('_class_name')}; this script trains a UNet2DModel")
    return config


def new_unconditional(file: str, beta_schedule: str | None = None) -> DDPMPipeline:
    """A pipeline around a UNet2DModel of random weights, which are the global generator's.

    Args:
        file: JSON, the model's configuration.

    Raises:
        ConfigError: it is missing or damaged, names what no UNet2DModel has, or makes none.
    """
    try:
        config = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"no model configuration {file}") from error
    except ValueError as error:
        raise ConfigError(f"{file} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{file} must hold an object with a UNet2DModel's configuration")
    known = signature(UNet2DModel.__init__).parameters
    given = {name: value for name, value in config.items() if not name.startswith("_")}
    if unknown := sorted(given.keys() - known.keys()):
        raise ConfigError(f"{file}: a UNet2DModel has no {unknown[0]}")
    try:
        unet = UNet2DModel(**given)
    except (ValueError, TypeError, AssertionError, RuntimeError) as error:
        raise ConfigError(f"{file} makes no UNet2DModel: {error}") from error
    return pipeline_of(unet, beta_schedule)


def pipeline_of(unet: UNet2DModel, beta_schedule: str | None = None) -> DDPMPipeline:
    check_channels(unet)
    return DDPMPipeline(unet, DDPMScheduler(beta_schedule=beta_schedule or "linear"))


def check_channels(unet: UNet2DModel) -> None:
    """Raise ConfigError unless a model takes grey or RGB images and returns as many channels."""
    taken, returned = unet.config.in_channels, unet.config.out_channels
    if taken not in CHANNELS or returned != taken:
        raise ConfigError(
            f"the model takes {taken} channels and returns {returned}; supported are 1 or 3, as many in as out "
            "(models that learn the noise's variance return twice as many)"
        )


def image_size(unet: UNet2DModel) -> int | None:
    """The side that the model was made for, where its configuration says one."""
    size = unet.config.sample_size
    return size if isinstance(size, int) or size is None else max(size)


def to_channels(pixels: Tensor, channels: int) -> Tensor:
    """RGB images [B, 3, H, W] as they are, or their luma (ITU-R BT.601) [B, 1, H, W]."""
    if channels == 3:
        return pixels
    weights = torch.tensor([0.299, 0.587, 0.114], device=pixels.device).view(1, 3, 1, 1)
    return (pixels * weights).sum(1, keepdim=True)


@torch.no_grad()
def draw_images(
    pipe: Any,
    count: int,
    size: int,
    steps: int,
    seed: int,
    labels: Sequence[int] | None = None,
    guidance_scale: float = 1.0,
    batch_size: int = 64,
    boxes: Sequence[Box] | None = None,
) -> list[Image.Image]:
    """Images of `size` pixels a side by DDIM (arXiv 2010.02502, eta 0), image i always from the same noise.

    Args:
        pipe: with a UNet2DModel and a scheduler of DDPM's noise. labels: the class of each image.
        guidance_scale: above 1, away from what the model's last class, which stands for none, would give.
        boxes: the frame of each image; None for what is set.
    """
    unet = pipe.unet
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(steps)
    channels, device = unet.config.in_channels, unet.device
    images = []
    for start in range(0, count, batch_size):
        stop = min(start + batch_size, count)
        noise = [torch.randn(channels, size, size, generator=noise_generator(seed, i)) for i in range(start, stop)]
        samples = torch.stack(noise).to(device)
        classes = None if labels is None else torch.tensor(labels[start:stop], device=device)
        with boxes_of_batch(unet, boxes, slice(start, stop)):
            for timestep in scheduler.timesteps:
                prediction = unet(samples, timestep, classes).sample
                if guidance_scale != 1 and classes is not None:
                    none = unet(samples, timestep, torch.full_like(classes, unet.config.num_class_embeds - 1)).sample
                    prediction = none + guidance_scale * (prediction - none)
                samples = scheduler.step(prediction.float(), timestep, samples).prev_sample
        bytes_ = ((samples.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        images += [Image.fromarray(one[..., 0] if channels == 1 else one) for one in bytes_]
    return images


def noise_generator(seed: int, index: int) -> torch.Generator:
    """Of one image's noise."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, index]).generate_state(1)[0]))
