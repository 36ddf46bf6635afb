"""The small network of the centre-of-mass and positional-bias experiments: strided convolutions and a linear head."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from geopos_diffusers.errors import ConfigError

from .trial import Trial

HEADS = ("average", "maximum", "flatten")


class PositionNetwork(nn.Module):
    """Strided 3x3 convolutions with ReLU, then a linear layer. [B, 1, S, S] -> [B, outputs].

    Each convolution halves the side. The head decides what the plain convolution can know of places: "average" and
    "maximum" take the mean or the largest value over all of them, "flatten" gives each place of the last layer weights
    of its own.

    Args:
        widths: channels of each convolution.
        outputs: numbers a sample. size: side of the images in pixels.
        batch_norm: batch normalisation between each convolution and its ReLU.

    Raises:
        ConfigError: an unknown head, no or non-positive widths, or a size that the strides do not divide.
    """

    def __init__(
        self, widths: Sequence[int], outputs: int, head: str, size: int = 32, batch_norm: bool = False
    ) -> None:
        super().__init__()
        if head not in HEADS:
            raise ConfigError(f"head must be one of {', '.join(HEADS)}; got {head!r}")
        if not widths or min(widths) < 1:
            raise ConfigError(f"widths must be one or more numbers >= 1; got {list(widths)}")
        if size < 1 or size % 2 ** len(widths):
            raise ConfigError(f"size must be a multiple of {2 ** len(widths)} for {len(widths)} widths; got {size}")
        places = (size // 2 ** len(widths)) ** 2 if head == "flatten" else 1
        layers: list[nn.Module] = []
        for inputs, width in zip((1, *widths), widths, strict=False):
            layers.append(nn.Conv2d(inputs, width, 3, stride=2, padding=1))
            layers += [nn.BatchNorm2d(width), nn.ReLU()] if batch_norm else [nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        pools = {"average": nn.AdaptiveAvgPool2d(1), "maximum": nn.AdaptiveMaxPool2d(1), "flatten": nn.Identity()}
        self.pool = pools[head]
        self.linear = nn.Linear(widths[-1] * places, outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.pool(self.convolutions(images)).flatten(1))


@dataclass(frozen=True, kw_only=True)
class PositionTrial(Trial):
    """A training of a `PositionNetwork` with this head, with or without batch normalisation."""

    head: str
    batch_norm: bool = False
