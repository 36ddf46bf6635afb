"""The frames that a training counts its coordinates in: one a training image, varied at random."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from ..boxes import Box, mean_frame
from ..errors import DataError
from ..patching.framing import geoconv_frames, set_default_frame, set_geoconv_frames
from ..patching.patched_model import present_config


class TrainingFrames:
    """Sets the frames of a patched model in training.

    The mean box of the training data becomes the model's default frame. It is the frame of images without a box and of
    those that dropout takes theirs from, so that the model learns to generate where no box is given.

    Args:
        model: the patched model itself, without wrappers. data: with `some_boxes()`.
        dropout: share of the images. jitter: see `vary`.

    Raises:
        DataError: no image has a box within what is cut out of it.
    """

    def __init__(self, model: nn.Module, data: Any, dropout: float = 0.0, jitter: float = 0.0) -> None:
        self.model, self.dropout, self.jitter = model, dropout, jitter
        boxes = [box for box in data.some_boxes() if not box.isnan().any()]
        if not boxes:
            raise DataError(f"no image has a box in the column {data.columns.frame!r} within what is cut out of it")
        self.default: Box = mean_frame(clipped(box) for box in boxes)
        set_default_frame(model, self.default)

    def begin(self, boxes: Tensor) -> None:
        """Set the frames of a training batch, with random numbers of the CPU's global generator.

        They stay set for the backward pass, in which checkpoints run layers again.

        Args:
            boxes: [B, 4] in shares of the images; NaN for none.
        """
        boxes = boxes.cpu().double()
        if self.jitter:
            boxes = vary(boxes, self.jitter)
        if self.dropout:
            boxes = boxes.masked_fill((torch.rand(len(boxes)) < self.dropout)[:, None], torch.nan)
        set_geoconv_frames(self.model, frames_of_boxes(self.model, boxes))

    def within(self, boxes: Tensor) -> AbstractContextManager[None]:
        """The frames of held-out images [B, 4] within the block, as they are."""
        return geoconv_frames(self.model, frames_of_boxes(self.model, boxes.cpu()))

    def of_items(self, items: Sequence[dict[str, Any]], count: int) -> list[Box]:
        """Boxes for `count` generated images: those of the items, going round, cut off at the edges of the image."""
        boxes = [self.default if item["box"].isnan().any() else clipped(item["box"]) for item in items]
        return [boxes[number % len(boxes)] for number in range(count)]

    def unset(self, run: Callable[[int], dict[str, float]], step: int) -> dict[str, float]:
        """run(step) without the frames of the last training batch."""
        set_geoconv_frames(self.model, None)
        return run(step)


def clipped(box: Tensor) -> Box:
    """A box [4] cut off at the edges of the image."""
    left, top, right, bottom = box.clamp(0, 1).tolist()
    return left, top, right, bottom


def vary(boxes: Tensor, jitter: float) -> Tensor:
    """Boxes [B, 4] with middle, width and height changed by up to `jitter` of width and height, uniformly."""
    moves = (2 * torch.rand(len(boxes), 2, 2, dtype=boxes.dtype) - 1) * jitter
    corner, other = boxes[:, :2], boxes[:, 2:]
    size = other - corner
    middle = (corner + other) / 2 + moves[:, 0] * size
    half = (1 + moves[:, 1]) * size / 2
    return torch.cat([middle - half, middle + half], 1)


def frames_of_boxes(model: nn.Module, boxes: Tensor) -> Tensor | None:
    """The frames [B, 2, 2] of boxes [B, 4] in a model; where a box is NaN its default frame.

    None for a model that was trained without frames.
    """
    config = present_config(model)
    if config is None or config.default_frame is None:
        return None
    default = torch.tensor(config.default_frame, dtype=torch.float64)
    return as_frames(torch.where(boxes.isnan().any(1)[:, None], default, boxes.double()))


def as_frames(boxes: Tensor) -> Tensor:
    """Boxes [B, 4], which may reach outside the image, as frames [B, 2, 2] (see `set_geoconv_frames`)."""
    left, top, right, bottom = boxes.unbind(1)
    return torch.stack(
        [torch.stack([top + bottom - 1, left + right - 1], 1), torch.stack([bottom - top, right - left], 1)], 1
    )
