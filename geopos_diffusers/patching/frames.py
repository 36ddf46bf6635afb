"""Frames: coordinates that are counted from a part of the image instead of from the image.

The frame of an image is a centre and a half size along each axis, in the image's own coordinates (normalization
`unit`). A pixel's coordinate c becomes (c - centre) / half size, so the frame's edges lie at -1 and 1. Where an image
has several frames, each pixel is counted in the nearest: the one in which its largest coordinate is least; with
`frame_window` each frame has its own part of the image, and they add up.
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from ..boxes import check_box
from ..errors import ConfigError
from .model_call import in_backward_pass, makes_plain_tensors

# Guidance runs a model on the whole batch up to three times over. More would be images that have no frame of their own.
MOST_COPIES = 3
MOST_KEPT = 128  # layouts of layers, of which each tile of an image has its own


@dataclass(frozen=True)
class FrameMap:
    """One frame of each image, as a layer needs it: c + (c * stretch + offset), [1 or samples, axes] each."""

    stretch: Tensor
    offset: Tensor
    _made: dict[tuple, tuple[Any, Any]] = field(default_factory=dict, compare=False)

    def made_once(self, make: Callable[..., Any], taps: Any, config: Any) -> Any:
        """`make(taps, offset, config, this)`, kept for the layers of the same layout and for later steps."""
        if not makes_plain_tensors():
            return make(taps, self.offset, config, self)
        key = (make, id(taps), config.encoding, config.basis, config.frame_limit, config.frame_window)
        known, table = self._made.get(key, (None, None))
        if known is not taps:  # of a copy of these frames, others can have the id
            if len(self._made) >= MOST_KEPT:
                self._made.clear()
            # What is first made in inference mode could not be saved for a later backward pass.
            with torch.inference_mode(False), torch.no_grad():
                table = make(taps, self.offset, config, self)
            self._made[key] = taps, table
        return table

    def counted(self, coordinates: Sequence[Tensor]) -> list[Tensor]:
        """Coordinates in the image, [L_d] an axis, as coordinates in the frame, [1 or samples, L_d] an axis."""
        axes = zip(coordinates, self.stretch.unbind(1), self.offset.unbind(1), strict=True)
        return [c + (c * wider.unsqueeze(1) + moved.unsqueeze(1)) for c, wider, moved in axes]

    def windows(self, places: Sequence[Tensor]) -> list[Tensor]:
        """How far each pixel lies within the frame: 1 inside, 0 from one pixel outside on, and linear between.

        Pixels beyond the image, which some layers put out, count as those at its edge, so that the frame of the image,
        and of axes that frames leave alone, has a window of ones.

        Args:
            places: coordinates of the pixels in the image, [L_d] an axis.

        Returns:
            [1 or samples, L_d] an axis, whose product over the axes is the window.
        """
        windows, inside = [], self.counted([place.clamp(-1, 1) for place in places])
        for place, own, wider in zip(places, inside, self.stretch.unbind(1), strict=True):
            if len(place) < 2:
                windows.append(torch.ones_like(own))
                continue
            pixel = (place[1] - place[0]) * (1 + wider).unsqueeze(1)
            windows.append(((1 - own.abs()) / pixel + 1).clamp(0, 1))
        return windows


class Frames:
    """The frames of the N images of a batch, as the affine map c + (c * stretch + offset) of their coordinates.

    A map of zeros is the image itself, bitwise. Both tables are float64, [N, K, n], for K frames an image. `unguided`
    holds the tables [1, 1, n] of what guidance compares with, if that is in a frame of its own.
    """

    def __init__(self, frames: Tensor) -> None:
        """From centres and half sizes [N, K, 2, n]."""
        centre, half = frames.unbind(2)
        self.stretch, self.offset = 1 / half - 1, -centre / half
        self.unguided: tuple[Tensor, Tensor] | None = None
        self._maps: dict[tuple, list[FrameMap]] = {}

    def guided(self, default: "Frames | None") -> "Frames":
        """These frames for the second half of a batch that guidance has doubled.

        The first half, without the prompts, is in the one frame `default`, or in the image's own coordinates.
        """
        frames = copy(self)
        none = self.stretch.new_zeros(1, 1, 1)
        frames.unguided, frames._maps = (none, none) if default is None else (default.stretch, default.offset), {}
        return frames

    def __len__(self) -> int:
        return len(self.stretch)

    @property
    def per_image(self) -> int:
        return self.stretch.shape[1]

    @property
    def axes(self) -> int:
        return self.stretch.shape[2]

    def maps(self, axes: int, samples: int, like: Tensor) -> list[FrameMap]:
        """The K frames of each image for a layer of `axes` axes that is given `samples` samples.

        Axes before the framed ones keep the image's coordinates. Of the frames of one image, every sample is in them;
        the samples of a batch that guidance has doubled or trebled are in theirs again. Of guided frames, each image
        has two samples.

        Raises:
            ConfigError: another number of samples.
        """
        if not makes_plain_tensors():
            return self._make(axes, samples, like)
        key = (axes, samples, like.dtype, like.device)
        if key not in self._maps:
            # A table first made in inference mode could not be saved for a later backward pass.
            with torch.inference_mode(False), torch.no_grad():
                self._maps[key] = self._make(axes, samples, like)
        return self._maps[key]

    def _make(self, axes: int, samples: int, like: Tensor) -> list[FrameMap]:
        count, copies = len(self), 1
        if self.unguided is not None:
            if samples != 2 * count:
                raise ConfigError(
                    f"guided frames of {count} images are set and the model was called with {samples} samples, not "
                    f"{2 * count}: they need a frame for each image, and a pipeline that doubles its batch for guidance"
                )
        elif count > 1:
            copies = samples // count
            if samples % count or copies > MOST_COPIES:
                raise ConfigError(
                    f"{count} frames are set and the model was called with {samples} samples; set one frame for each "
                    "image, in the images' order, or one frame for all"
                )
        stretch, offset = (
            nn.functional.pad(table, (axes - self.axes, 0)).to(like.dtype).to(like.device).repeat(copies, 1, 1)
            for table in self._doubled()
        )
        return [FrameMap(*one) for one in zip(stretch.unbind(1), offset.unbind(1), strict=True)]

    def _doubled(self) -> tuple[Tensor, Tensor]:
        """Both tables, of guided frames with those of the unconditional half before them."""
        if self.unguided is None:
            return self.stretch, self.offset
        stretch, offset = (
            torch.cat([_of_axes(default, self.axes).expand_as(table), table])
            for default, table in zip(self.unguided, (self.stretch, self.offset), strict=True)
        )
        return stretch, offset

    def nearest(self, coordinates: Sequence[Tensor], maps: Sequence[FrameMap]) -> Tensor:
        """Which of its image's frames each pixel is counted in; the first of those that are equally near.

        Args:
            coordinates: of the pixels in the image, [L_d] an axis. maps: as `maps` gives them.

        Returns:
            Indices [1 or samples, *L].
        """
        distances = [self._distance(coordinates, one) for one in maps]
        least, index = distances[0], torch.zeros_like(distances[0], dtype=torch.long)
        for frame, far in enumerate(distances[1:], 1):
            nearer = far < least
            least, index = torch.where(nearer, far, least), index.masked_fill(nearer, frame)
        return index

    def _distance(self, coordinates: Sequence[Tensor], one: FrameMap) -> Tensor:
        """The largest coordinate of each pixel in the frame, [1 or samples, *L]."""
        count, inside = len(coordinates), one.counted(coordinates)
        along = [
            inside[d].abs().view(-1, *[inside[d].shape[1] if axis == d else 1 for axis in range(count)])
            for d in range(count - self.axes, count)
        ]
        return reduce(torch.maximum, along)


class CurrentFrames:
    """The frames that a model works in; its layers share this object.

    Attributes:
        frames: what was set; None for the default.
        default: what holds where nothing is set; None for the image itself.
    """

    def __init__(self, default: Frames | None = None) -> None:
        self.frames: Frames | None = None
        self.default = default
        self._latest: Frames | None = None

    def now(self) -> Frames | None:
        """The frames of the running call.

        What gradient checkpointing runs again in the backward pass is in the frames of the forward pass, which may no
        longer be set.
        """
        frames = self.default if self.frames is None else self.frames
        if torch.compiler.is_compiling():  # compiled checkpoints keep what they were given
            return frames
        if not in_backward_pass():
            self._latest = frames
        return self._latest


def _of_axes(table: Tensor, axes: int) -> Tensor:
    """A table's last axes, with zeros for those before its own."""
    return nn.functional.pad(table, (max(0, axes - table.shape[-1]), 0))[..., -axes:]


def read_frames(frames: Any, image_size: tuple[int, int] | None = None) -> Frames:
    """Frames [N, 2, n] or [N, K, 2, n], boxes [N, 4] or [N, K, 4], or one box of four numbers, checked.

    Args:
        image_size: height and width in pixels, where boxes are in pixels.

    Raises:
        ConfigError: another shape, numbers that are not finite, a half size that is not above 0, or a bad box.
    """
    try:
        values = torch.as_tensor(frames, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(frames).__name__
        raise ConfigError(f"frames must be boxes [N, 4] or frames [N, 2, n] of numbers; got {kind}") from error
    shape = list(values.shape)
    if shape and shape[-1] == 4 and len(shape) <= 3 and values.numel():
        count = shape[1] if len(shape) == 3 else 1
        return Frames(box_frames(values.reshape(-1, 4), image_size).unflatten(0, (-1, count)))
    if len(shape) not in (3, 4) or shape[-2] != 2 or not 1 <= shape[-1] <= 3 or not values.numel():
        raise ConfigError(
            "frames must be boxes [N, 4], one box of four numbers, or frames [N, 2, n]; with K an image, [N, K, 4] or "
            f"[N, K, 2, n]; got {shape}"
        )
    if image_size is not None:
        raise ConfigError("image_size goes with boxes in pixels; frames [N, 2, n] are in the image's coordinates")
    if not torch.isfinite(values).all():
        raise ConfigError("frames hold numbers that are not finite")
    half = values[..., 1, :]
    if not (half > 0).all():
        raise ConfigError(f"a frame's half sizes must be above 0; got {half.min().item():.6g}")
    return Frames(values.clone() if len(shape) == 4 else values.unsqueeze(1).clone())


def _checked_size(image_size: Any) -> tuple[float, float]:
    try:
        height, width = image_size
        if height > 0 < width:
            return height, width
    except (TypeError, ValueError):
        pass
    raise ConfigError(f"image_size takes height and width in pixels; got {image_size!r}")


def box_frames(boxes: Any, image_size: tuple[int, int] | None = None) -> Tensor:
    """Boxes [N, 4] as frames [N, 2, 2]: centres and half sizes, vertical axis first.

    A share s of the image lies at the coordinate 2 s - 1, so the box (0, 0, 1, 1) is the image itself.

    Args:
        image_size: height and width in pixels, where the boxes are in pixels; None for shares of the image.

    Raises:
        ConfigError: a box is not four finite numbers, reaches outside the image, or is empty or reversed.

    Example:
        >>> box_frames([(0.5, 0.0, 1.0, 1.0)]).tolist()
        [[[0.0, 0.5], [1.0, 0.5]]]
    """
    name = "box" if image_size is None else "box, as shares,"
    height, width = (1, 1) if image_size is None else _checked_size(image_size)
    shares = torch.as_tensor(boxes, dtype=torch.float64) / torch.tensor([width, height] * 2, dtype=torch.float64)
    x0, y0, x1, y1 = torch.tensor([check_box(box, name) for box in shares.tolist()], dtype=torch.float64).unbind(1)
    centre, half = torch.stack([y0 + y1 - 1, x0 + x1 - 1], 1), torch.stack([y1 - y0, x1 - x0], 1)
    return torch.stack([centre, half], 1)
