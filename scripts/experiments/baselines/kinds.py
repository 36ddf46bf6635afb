"""Plain convolutions, CoordConv or GeoConv: any network of torch convolutions, in any of these ways, by one argument.

The networks of this folder are written with torch's layers. `set_kind` gives them the coordinate channels with the
same surgery that patches pretrained models, and then draws all weights anew, as those of a convolution over the
concatenated input are drawn. So the kinds differ in the coordinate weights and in nothing else.
"""

import math
from dataclasses import replace

import torch
from torch import nn

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.patching.config import GeoConvConfig
from geopos_diffusers.patching.surgery import apply_geoconv
from geopos_diffusers.patching.targets import CONVOLUTIONS

KINDS = ("conv", "coord", "geo", "geo-multilinear")
INITIALISATIONS = ("torch", "dcgan")
DCGAN_DEVIATION = 0.02  # of all weights


def kind_config(kind: str, config: GeoConvConfig | None = None) -> GeoConvConfig | None:
    """The coordinate channels of a kind.

    conv: None. coord: one channel an axis and no shift. geo: `config` in the basis of taps, a kernel over the channel
    as in the paper. geo-multilinear: `config` in the multilinear basis, coefficients of 1, x, y and xy.

    Raises:
        ConfigError: an unknown kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    if kind == "conv":
        return None
    config = config or GeoConvConfig()
    if kind == "geo-multilinear":
        return replace(config, basis="multilinear", border=None)
    coord = {"encoding": "cartesian", "shift_range": 0.0} if kind == "coord" else {}
    return replace(config, basis="taps", **coord)


def set_kind(
    network: nn.Module,
    kind: str,
    config: GeoConvConfig | None = None,
    seed: int = 0,
    initialisation: str = "torch",
) -> nn.Module:
    """Turn a new network of plain convolutions into one of `kind`, and draw its weights.

    Args:
        config: options of the geometry channel of GeoConv, and its border and normalization also of kind "coord".
        seed: two networks of one seed have the same draws behind their weights, whatever their kinds.
        initialisation: as `draw_weights`.

    Returns:
        `network`, changed in place.

    Raises:
        ConfigError: an unknown kind or initialisation.
    """
    if (geometry := kind_config(kind, config)) is not None:
        apply_geoconv(network, geometry)
    draw_weights(network, seed, initialisation)
    return network


def parameter_count(network: nn.Module, kind: str = "conv", config: GeoConvConfig | None = None) -> int:
    """The parameters that a network of plain convolutions has as `kind`; those it has, for "conv"."""
    total = sum(parameter.numel() for parameter in network.parameters())
    if (geometry := kind_config(kind, config)) is None:
        return total
    filters = [layer for layer in network.modules() if isinstance(layer, CONVOLUTIONS)]
    return total + sum(math.prod(geometry.weight_shape(layer.kernel_size)) * layer.out_channels for layer in filters)


def draw_weights(network: nn.Module, seed: int, initialisation: str = "torch") -> None:
    """Draw the weights of all convolutions and linear layers; for "dcgan" also those of batch normalisation.

    Base weights and coordinate weights come from two generators, so that the former do not depend on whether the latter
    are there.

    Args:
        initialisation: "torch": weights and biases uniform within 1 / sqrt(fan-in), as torch does, where the fan-in of
            a convolution counts its coordinate weights. "dcgan": weights N(0, 0.02), scales of batch normalisation
            N(1, 0.02), biases 0 (arXiv 1511.06434, section 4; the scales are those of its published code).

    Raises:
        ConfigError: an unknown initialisation.
    """
    if initialisation not in INITIALISATIONS:
        raise ConfigError(f"initialisation must be one of {', '.join(INITIALISATIONS)}; got {initialisation!r}")
    base, geometry = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 2**32)
    for module in network.modules():
        if initialisation == "dcgan":
            _draw_dcgan(module, base, geometry)
        elif isinstance(module, (*CONVOLUTIONS, nn.Linear)):
            _draw_torch(module, base, geometry)


@torch.no_grad()
def _draw_torch(module: nn.Module, base: torch.Generator, geometry: torch.Generator) -> None:
    geo_weight = getattr(module, "geo_weight", None)
    fan_in = module.weight[0].numel()
    if geo_weight is not None and not getattr(module, "transposed", False):
        fan_in += geo_weight[0].numel()
    bound = 1 / math.sqrt(fan_in)
    for parameter, generator in ((module.weight, base), (module.bias, base), (geo_weight, geometry)):
        if parameter is not None:
            parameter.uniform_(-bound, bound, generator=generator)


@torch.no_grad()
def _draw_dcgan(module: nn.Module, base: torch.Generator, geometry: torch.Generator) -> None:
    normalises = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine
    if not normalises and not isinstance(module, (*CONVOLUTIONS, nn.Linear)):
        return
    module.weight.normal_(1.0 if normalises else 0.0, DCGAN_DEVIATION, generator=base)
    if module.bias is not None:
        module.bias.zero_()
    if getattr(module, "geo_weight", None) is not None:
        module.geo_weight.normal_(0.0, DCGAN_DEVIATION, generator=geometry)
