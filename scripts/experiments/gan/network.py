"""Generator and discriminator after DCGAN (Radford et al., arXiv 1511.06434), with plain, CoordConv or GeoConv layers.

Strided 4x4 convolutions, batch normalisation everywhere but at the generator's output and the discriminator's input,
ReLU in the generator and leaky ReLU in the discriminator, and a linear layer at the end of the latents: "project and
reshape". The variants differ in the coordinate channels of the convolutions, and the matched ones in a few filters.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise, product

import torch
from torch import nn

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.patching.config import GeoConvConfig, GeoPosConfig

from ..baselines.kinds import parameter_count, set_kind
from ..baselines.trial import variant_name

SIZES = (32, 64)
SLOPE = 0.2  # of the leaky ReLU


@dataclass(frozen=True)
class Variant:
    """What an experiment compares: a kind of layers, with or without the random shift, plain or parameter-matched."""

    kind: str
    shift: bool = True
    matched: bool = False


VARIANTS = {
    "conv": Variant("conv"),
    "coord": Variant("coord"),
    "geo": Variant("geo"),
    "geo-no-shift": Variant("geo", shift=False),
    "conv-matched": Variant("conv", matched=True),
    "geo-matched": Variant("geo", matched=True),
}


def variant_title(variant: str) -> str:
    """A variant's name in results: "geo-no-shift" is "GeoConv, no shift"."""
    chosen = VARIANTS[variant]
    geometry = None if chosen.shift else GeoPosConfig(shift_range=0.0)
    return variant_name(chosen.kind, geometry, chosen.matched)


def build_dcgan(
    variant: str, size: int, width: int, latent_size: int, config: GeoConvConfig | None = None, seed: int = 0
) -> tuple[nn.Sequential, nn.Sequential]:
    """Generator and discriminator of a variant, with DCGAN's initial weights.

    Args:
        variant: a name of VARIANTS.
        size: side of the images, 32 or 64. width: channels at half of it; they double as the side halves.
        config: options of the geometry channel.
        seed: equal seeds give equal draws behind the weights that variants share.

    Returns:
        Networks [B, latent_size] -> [B, 3, size, size] in [-1, 1], and [B, 3, size, size] -> [B, 1] logits of "real".

    Raises:
        ConfigError: an unknown variant, or a size or width that is not possible.
    """
    if variant not in VARIANTS:
        raise ConfigError(f"variant must be one of {', '.join(VARIANTS)}; got {variant!r}")
    if size not in SIZES or width < 1 or latent_size < 1:
        raise ConfigError(
            f"size must be one of {', '.join(map(str, SIZES))}, width and latent_size at least 1; "
            f"got {size}, {width}, {latent_size}"
        )
    chosen = VARIANTS[variant]
    config = config or GeoConvConfig(basis="taps")
    config = config if chosen.shift else replace(config, shift_range=0.0)
    widths = stage_widths(size, width)
    networks = []
    for number, build in enumerate((build_generator, build_discriminator)):
        fitting = widths
        if chosen.matched:
            fitting = matched_widths(build, widths, latent_size, chosen.kind, config)
        # Two networks of one run must not begin with the same draws.
        networks.append(set_kind(build(fitting, latent_size), chosen.kind, config, 2 * seed + number, "dcgan"))
    return networks[0], networks[1]


def stage_widths(size: int, width: int) -> tuple[int, ...]:
    """Channels of the stages between the image and 4x4 pixels, the largest first: (width, 2 width, 4 width) at 32."""
    return tuple(width * 2**stage for stage in range(size.bit_length() - 3))


def build_generator(widths: tuple[int, ...], latent_size: int) -> nn.Sequential:
    """Latents [B, latent_size] to images [B, 3, 4 * 2^n, 4 * 2^n] in [-1, 1] for n widths."""
    last = widths[-1]
    layers: list[nn.Module] = [
        nn.Linear(latent_size, last * 16, bias=False),
        nn.Unflatten(1, (last, 4, 4)),
        nn.BatchNorm2d(last),
        nn.ReLU(inplace=True),
    ]
    for inputs, outputs in zip(widths[:0:-1], widths[-2::-1], strict=True):
        layers += [
            nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    layers += [nn.ConvTranspose2d(widths[0], 3, 4, stride=2, padding=1), nn.Tanh()]
    return nn.Sequential(*layers)


def build_discriminator(widths: tuple[int, ...], latent_size: int) -> nn.Sequential:
    """Images [B, 3, 4 * 2^n, 4 * 2^n] to logits [B, 1] for n widths. The latents' size does not matter to it."""
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(SLOPE, inplace=True)]
    for inputs, outputs in pairwise(widths):
        layers += [
            nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(SLOPE, inplace=True),
        ]
    layers += [nn.Flatten(), nn.Linear(widths[-1] * 16, 1)]
    return nn.Sequential(*layers)


def matched_widths(
    build: Callable[[tuple[int, ...], int], nn.Sequential],
    widths: tuple[int, ...],
    latent_size: int,
    kind: str,
    config: GeoConvConfig,
) -> tuple[int, ...]:
    """The channels, up to three more a stage, that give `kind` about as many parameters as CoordConv has at `widths`.

    CoordConv is the largest of the three kinds. The nearest count wins, then the fewest channels.
    """

    def count(channels: tuple[int, ...], of_kind: str) -> int:
        with torch.device("meta"):
            network = build(channels, latent_size)
        return parameter_count(network, of_kind, config)

    target = count(widths, "coord")
    candidates = [tuple(map(sum, zip(widths, more, strict=True))) for more in product(range(4), repeat=len(widths))]
    return min(candidates, key=lambda channels: (abs(count(channels, kind) - target), channels))
