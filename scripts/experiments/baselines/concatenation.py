"""CoordConv and GeoConv as they are usually written: the coordinate channels are appended to a convolution's input."""

import torch
from torch import Tensor, nn

from geopos_diffusers.patching.config import GeoPosConfig
from geopos_diffusers.patching.encoding import draw_shift, geopos_channels


class ConcatenatingConv(nn.Module):
    """A convolution of the input [B, C, H, W] and its coordinate channels, with one weight for both.

    Args:
        conv: an ungrouped convolution. Its weights are taken; those of the coordinates are zero.
        config: of the coordinate channels. While training they are shifted at random where it says so.
    """

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, config: GeoPosConfig) -> None:
        super().__init__()
        names = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        options = {name: getattr(conv, name) for name in names}
        channels = config.channels(2)
        self.conv = type(conv)(conv.in_channels + channels, conv.out_channels, bias=conv.bias is not None, **options)
        self.conv.to(conv.weight.device, conv.weight.dtype)
        self.config = config
        with torch.no_grad():
            own, new = self.conv.weight.split([conv.in_channels, channels], dim=0 if conv.transposed else 1)
            own.copy_(conv.weight)
            new.zero_()
            if conv.bias is not None:
                self.conv.bias.copy_(conv.bias)

    def forward(self, images: Tensor, *args: object) -> Tensor:
        shift = draw_shift(self.config, 2, len(images), images) if self.training and self.config.shift_range else None
        channels = geopos_channels(images.shape[2:], self.config, shift, images.device, images.dtype)
        return self.conv(torch.cat([images, channels.expand(len(images), -1, -1, -1)], dim=1), *args)
