"""Plain convolutions, CoordConv or GeoConv: any network of torch convolutions, three ways, by one argument.

The networks of this folder are written with torch's layers. `set_kind` gives them the coordinate channels with the
same surgery that patches pretrained models, and then draws all weights anew, as torch draws those of a convolution over
the concatenated input. So the three kinds differ in the coordinate weights and in nothing else.
"""

import math
from dataclasses import replace

import torch
from torch import nn

from ..config import GeoConvConfig
from ..errors import ConfigError
from ..surgery import apply_geoconv

KINDS = ("conv", "coord", "geo")
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def kind_config(kind: str, config: GeoConvConfig | None = None) -> GeoConvConfig | None:
    """The coordinate channels of a kind: None for conv; one channel an axis and no shift for coord; `config` for geo.

    Raises:
        ConfigError: an unknown kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    config = config or GeoConvConfig()
    return {"conv": None, "coord": replace(config, encoding="cartesian", shift_range=0.0), "geo": config}[kind]


def set_kind(network: nn.Module, kind: str, config: GeoConvConfig | None = None, seed: int = 0) -> nn.Module:
    """Turn a new network of plain convolutions into one of `kind`, and draw its weights.

    Args:
        config: options of the geometry channel of kind "geo", and its border and normalization also of kind "coord".
        seed: two networks of one seed have the same draws behind their weights, whatever their kinds.

    Returns:
        `network`, changed in place.
    """
    if (geometry := kind_config(kind, config)) is not None:
        apply_geoconv(network, geometry)
    draw_weights(network, seed)
    return network


def draw_weights(network: nn.Module, seed: int) -> None:
    """Draw the weights of all convolutions and linear layers uniformly within 1 / sqrt(fan-in), as torch does.

    The fan-in of a convolution counts its coordinate channels. Base weights and coordinate weights come from two
    generators, so that the former do not depend on whether the latter are there.
    """
    base, geometry = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 2**32)
    for module in network.modules():
        if not isinstance(module, (*_CONVOLUTIONS, nn.Linear)):
            continue
        geo_weight = getattr(module, "geo_weight", None)
        fan_in = module.weight[0].numel()
        if geo_weight is not None and not getattr(module, "transposed", False):
            fan_in += geo_weight[0].numel()
        bound = 1 / math.sqrt(fan_in)
        with torch.no_grad():
            for parameter, generator in ((module.weight, base), (module.bias, base), (geo_weight, geometry)):
                if parameter is not None:
                    parameter.uniform_(-bound, bound, generator=generator)
