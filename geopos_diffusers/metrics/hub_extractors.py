"""Feature extractors that transformers loads: DINOv2 (arXiv 2304.07193) and CLIP's image side (arXiv 2103.00020).

Features are what papers compare: the normalised class token of DINOv2 (Stein et al., arXiv 2306.04675, which uses the
large model), and CLIP's projected image embedding (CMMD, arXiv 2401.09603). Weights are read as safetensors only.

Images are prepared with Pillow by the model's own preprocessor_config.json. transformers' processors would do the same,
but resize otherwise where torchvision is installed, and a score should not depend on that.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError

from ..errors import DataError, MissingDependencyError

SETTINGS = "preprocessor_config.json"
DINO, CLIP = ("dinov2", "dinov2_with_registers"), ("clip", "clip_vision_model")
# Images of each set: 50,000 by Stein et al., and the 30,000 of COCO by CMMD.
USUAL_IMAGES = dict.fromkeys(DINO, 50_000) | dict.fromkeys(CLIP, 30_000)


@dataclass(frozen=True)
class Preparation:
    """How an image becomes a network's input, in this order.

    shortest: pixels that the shorter side is resized to, or None with `stretched` (height, width).
    crop: (height, width) taken out of the middle, or None. resample: Pillow's number of the resizing filter.
    mean, deviation: of the three channels, values in [0, 1].
    """

    shortest: int | None
    stretched: tuple[int, int] | None
    crop: tuple[int, int] | None
    resample: Image.Resampling
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """[3, H, W] float32 of an image of any mode and size."""
        image = image.convert("RGB")
        if self.shortest is not None:
            short, long = sorted(image.size)
            scaled = int(self.shortest * long / short)
            width, height = (self.shortest, scaled) if image.width <= image.height else (scaled, self.shortest)
        else:
            height, width = self.stretched or (image.height, image.width)
        pixels = np.asarray(image.resize((width, height), self.resample))
        if self.crop is not None:
            top, left = (height - self.crop[0]) // 2, (width - self.crop[1]) // 2
            pixels = pixels[top : top + self.crop[0], left : left + self.crop[1]]
        mean, deviation = (np.array(values, dtype=np.float32) for values in (self.mean, self.deviation))
        values = (pixels.astype(np.float32) / 255 - mean) / deviation
        return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


@dataclass(frozen=True)
class HubModel:
    """A loaded network with what belongs to it: see `extractors.Extractor`."""

    network: partial
    prepare: Preparation
    width: int
    usual_images: int


def load_hub_model(name: str) -> HubModel:
    """DINOv2 or CLIP from a local folder or the Hub.

    Raises:
        MissingDependencyError: it is not a folder, not in the Hub's cache, and the Hub cannot be reached.
        DataError: another kind of model, no safetensors, or settings that are not known here.
    """
    from transformers import AutoConfig, AutoModel, CLIPVisionModelWithProjection

    if not Path(name).is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise DataError(f"no extractor {name!r}: not mobilenet, dinov2, clip or inception, nor a folder, nor a Hub id")
    try:
        kind = AutoConfig.from_pretrained(name).model_type
        if kind not in USUAL_IMAGES:
            raise DataError(f"{name} is a model of type {kind!r}; an extractor needs one of {', '.join(USUAL_IMAGES)}")
        prepare = read_preparation(_settings_file(name))
        family = CLIPVisionModelWithProjection if kind in CLIP else AutoModel
        model = family.from_pretrained(name, use_safetensors=True, dtype=torch.float32)
    except DataError:
        raise
    except (OSError, SafetensorError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise _not_loaded(name, error) from error
    model.eval().requires_grad_(False)
    output, width = ("image_embeds", "projection_dim") if kind in CLIP else ("pooler_output", "hidden_size")
    return HubModel(partial(_run, model, output), prepare, getattr(model.config, width), USUAL_IMAGES[kind])


def _run(model: Any, output: str, pixels: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=pixels)[output]


def _settings_file(name: str) -> Path:
    from transformers.utils import cached_file

    return Path(cached_file(name, SETTINGS))


def _not_loaded(name: str, error: Exception) -> DataError | MissingDependencyError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if Path(name).is_dir():
        return DataError(f"the extractor in {name} cannot be loaded: {reason}")
    return MissingDependencyError(
        f"the extractor {name} is not in the Hub's cache and could not be fetched ({reason}); where there is internet, "
        f"run `hf download {name}`, or give a folder that holds its config.json, {SETTINGS} and safetensors"
    )


def read_preparation(path: Path) -> Preparation:
    """The preparation that a preprocessor_config.json describes.

    Raises:
        DataError: a step or a value that is not known here, such as padding.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        size = settings["size"] if settings.get("do_resize", True) else {}
        size = {"shortest_edge": size} if isinstance(size, int) else size
        crop = settings["crop_size"] if settings.get("do_center_crop", True) else None
        crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
        result = Preparation(
            shortest=size.get("shortest_edge"),
            stretched=(size["height"], size["width"]) if "height" in size else None,
            crop=None if crop is None else (crop["height"], crop["width"]),
            resample=Image.Resampling(settings.get("resample", Image.Resampling.BICUBIC)),
            mean=tuple(settings["image_mean"]),
            deviation=tuple(settings["image_std"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be used: {type(error).__name__} {error}") from error
    smallest = (result.shortest,) * 2 if result.shortest else result.stretched
    fixed = result.crop or result.stretched
    if settings.get("do_pad") or not settings.get("do_rescale", True) or not settings.get("do_normalize", True):
        raise DataError(f"{path} cannot be used: padding, or pixels that are not scaled and normalised")
    if smallest is None or fixed is None or any(side > least for side, least in zip(fixed, smallest, strict=True)):
        raise DataError(f"{path} cannot be used: it must resize, and crop to a fixed size within that")
    return result
