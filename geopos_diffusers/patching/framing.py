"""Setting the frames that a patched model's coordinates are counted in, for good or for a while."""

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from torch import nn

from ..boxes import Box
from ..errors import ConfigError, SurgeryError
from .frames import CurrentFrames, Frames, read_frames
from .patched_model import STATE, frames_holder, geometry_layers, geometry_models

# Pipelines whose doubled batch has the half with the prompts first.
_PROMPT_FIRST = re.compile("(DiT|OmniGen|Lumina|(StableCascade|Wuerstchen)(Prior|Decoder|Combined))Pipeline")


def set_geoconv_frames(
    pipe_or_model: Any, frames: Any, image_size: tuple[int, int] | None = None, *, guided: bool = False
) -> None:
    """Count coordinates from a box of each image instead of from the image, until other frames are set.

    The box says where something goes. Its edges lie at -1 and 1, as those of the image do without it; a random shift is
    in units of half the box. All patched components of a pipeline get the frames; give `pipe.unet` for that one alone.

    Args:
        frames: one box (x0, y0, x1, y1) for all images, or boxes [N, 4], one an image in the images' order: with
            several images a prompt, each of them has its own. In shares of the image, 0 to 1. Or frames [N, 2, n]:
            centres and half sizes of the last n axes in the image's coordinates, -1 to 1, vertical before horizontal;
            these may lie outside the image. For K things in each image, boxes [N, K, 4] or frames [N, K, 2, n]: each
            pixel is counted in the nearest of its image's frames, in which its largest coordinate is least (with
            `frame_window` the terms of all of them add up); N is 1 where they are those of all images. None takes them
            off again: then the model's default frame holds, if it was trained with one, or else the image.
        image_size: height and width of the image, where boxes are in pixels.
        guided: classifier-free guidance strengthens the frames as it does the prompt. What it compares with, the first
            half of a batch that the pipeline doubles, is then in the model's default frame or, without one, in the
            image's own coordinates; otherwise it is in the frames too. Autoencoders, which guidance does not call,
            have the frames as they are.

    Raises:
        SurgeryError: the model is not patched.
        ConfigError: a box or frame that is not valid (see `box_frames`); guided frames of a pipeline that puts the half
            with the prompts first (DiT, Stable Cascade); coordinates that are not normalized to
            `unit`; a geometry channel without coordinates; layers with fewer axes than the frames. Nothing is changed.
            A later call of the model raises it where the number of its samples is not that of the frames, or two or
            three times as many as guidance makes of them; of guided frames, where it is not twice as many.

    Example:
        >>> from geopos_diffusers import apply_geoconv
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> _ = apply_geoconv(model)
        >>> set_geoconv_frames(model, (0.5, 0.0, 1.0, 0.5))  # the upper right quarter, for every image
        >>> set_geoconv_frames(model, [(0, 0, 32, 32), (16, 16, 64, 64)], image_size=(64, 64))
        >>> set_geoconv_frames(model, [[(0.0, 0.2, 0.5, 0.8), (0.5, 0.2, 1.0, 0.8)]])  # two things in every image
        >>> set_geoconv_frames(model, None)
    """
    models = _framed_models(pipe_or_model)
    if guided and frames is not None and _PROMPT_FIRST.fullmatch(type(pipe_or_model).__name__):
        kind = type(pipe_or_model).__name__
        raise ConfigError(
            f"{kind} puts the half with prompts first, and guided frames need the half without them there"
        )
    checked = None if frames is None else _checked(models, frames, image_size)
    for model in models.values():
        _set(model, checked if checked is None or not guided else _guided(model, checked))


@contextmanager
def geoconv_frames(
    pipe_or_model: Any, frames: Any, image_size: tuple[int, int] | None = None, *, guided: bool = False
) -> Iterator[None]:
    """Within the block coordinates are counted in these frames; what was set before comes back after it.

    Arguments and errors are those of `set_geoconv_frames`.

    Example:
        >>> import torch
        >>> from geopos_diffusers import apply_geoconv
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> _ = apply_geoconv(model)
        >>> with geoconv_frames(model, [(0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)]):
        ...     images = model(torch.zeros(2, 3, 16, 16))
    """
    models = _framed_models(pipe_or_model)
    holders = {name: frames_holder(model) for name, model in models.items()}
    before = {name: None if holder is None else holder.frames for name, holder in holders.items()}
    set_geoconv_frames(pipe_or_model, frames, image_size, guided=guided)
    try:
        yield
    finally:
        for name, model in models.items():
            _set(model, before[name])


def boxes_of_batch(pipe_or_model: Any, boxes: Sequence[Box] | None, batch: slice) -> AbstractContextManager[None]:
    """`geoconv_frames` with those of `boxes` that belong to a batch; without boxes nothing changes."""
    return nullcontext() if boxes is None else geoconv_frames(pipe_or_model, boxes[batch])


def set_default_frame(model: nn.Module, box: Box) -> None:
    """Give a patched model the default frame that its config would have given it; see `GeoConvConfig.default_frame`.

    For models that are patched before the boxes are known.

    Raises:
        ConfigError: a box that is not valid, or coordinates that take no frames.
    """
    config = replace(vars(model)[STATE], default_frame=box)
    _set(model, _checked({"": model}, config.default_frame, None))
    holder = frames_holder(model)
    assert holder is not None
    holder.default, holder.frames = holder.frames, None
    setattr(model, STATE, config)


def _framed_models(pipe_or_model: Any) -> dict[str, nn.Module]:
    models = geometry_models(pipe_or_model)
    if not models:
        raise SurgeryError("the model is not patched: it has no coordinates to count in frames")
    return models


def _checked(models: dict[str, nn.Module], values: Any, image_size: tuple[int, int] | None) -> Frames:
    """The frames, if every layer of the models can work in them."""
    frames = read_frames(values, image_size)
    for component, model in models.items():
        label = component or type(model).__name__
        for name, layer in geometry_layers(model).items():
            if problem := _problem(layer, frames):
                raise ConfigError(f"{label} cannot take frames: {name} {problem}")
    return frames


def _problem(layer: Any, frames: Frames) -> str:
    """What keeps a GeoConv from working in the frames; empty if nothing does."""
    config, axes = layer.geo_config, len(layer.kernel_size)
    if config.encoding == "constant":
        return "has encoding 'constant', which has no coordinates"
    if config.normalization != "unit":
        return f"has normalization {config.normalization!r}; frames need 'unit'"
    return f"has {axes} axes, the frames have {frames.axes}" if axes < frames.axes else ""


def _guided(model: nn.Module, frames: Frames) -> Frames:
    """The frames as a model takes them under guidance; as they are for an autoencoder, which it does not call."""
    if hasattr(model, "decode"):
        return frames
    holder = frames_holder(model)
    return frames.guided(None if holder is None else holder.default)


def _set(model: nn.Module, frames: Frames | None) -> None:
    holder = frames_holder(model)
    if holder is None:
        if frames is None:
            return
        holder = CurrentFrames()
        for layer in geometry_layers(model).values():
            layer.geo_frames = holder
    holder.frames = frames
