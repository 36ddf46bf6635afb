"""The small network of the depth experiment: an encoder and a decoder with skip connections, from an image to depth."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from geopos_diffusers.errors import ConfigError


class DepthNetwork(nn.Module):
    """Strided 3x3 convolutions, then nearest upsampling, skips and 3x3 convolutions. [B, 3, S, S] -> [B, 1, S, S].

    A U-Net (arXiv 1505.04597) that ends at half the side, from where its log-depth is interpolated, as in Laina et al.
    (arXiv 1606.00373, section 3). Depth is positive: `reference` times the exponential of what the last layer gives.

    Args:
        widths: channels of the encoder's convolutions, each of which halves the side; the decoder has the same.
        reference: depth where the last layer gives 0, for example the mean of the training data.

    Raises:
        ConfigError: fewer than two or non-positive widths, or a reference that is not positive. In `forward`, images
            whose side the strides do not divide.
    """

    def __init__(self, widths: Sequence[int], reference: float = 1.0) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise ConfigError(f"widths must be two or more numbers >= 1; got {list(widths)}")
        if not reference > 0:
            raise ConfigError(f"reference must be above 0; got {reference}")
        self.reference = reference
        self.encoder = nn.ModuleList(
            convolution_block(inputs, width, stride=2) for inputs, width in zip((3, *widths), widths, strict=False)
        )
        pairs = list(pairwise(widths))[::-1]
        self.decoder = nn.ModuleList(convolution_block(width + deeper, width) for width, deeper in pairs)
        self.last = nn.Conv2d(widths[0], 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] % 2 ** len(self.encoder) or images.shape[-2] % 2 ** len(self.encoder):
            raise ConfigError(
                f"sides must be multiples of {2 ** len(self.encoder)} for {len(self.encoder)} widths; got "
                f"{tuple(images.shape[-2:])}"
            )
        skips, hidden = [], images
        for block in self.encoder:
            hidden = block(hidden)
            skips.append(hidden)
        for block, skip in zip(self.decoder, skips[-2::-1], strict=True):
            hidden = block(torch.cat([interpolate(hidden, scale_factor=2.0), skip], dim=1))
        return self.reference * interpolate(self.last(hidden), scale_factor=2.0, mode="bilinear").exp()


def convolution_block(inputs: int, width: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, normalisation over all channels and places of an image, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, width, 3, stride=stride, padding=1), nn.GroupNorm(1, width), nn.ReLU())
