"""A discriminator of patches (Isola et al., arXiv 1611.07004, section 3.2.2) with the hinge loss (arXiv 1705.02894)."""

from torch import Tensor, nn
from torch.nn.functional import relu

from ..errors import ConfigError

SLOPE = 0.2  # of the leaky rectifiers
LARGEST_FACTOR = 8  # by which the first layer's channels grow
GROUP_CHANNELS = 8  # of the normalisation, which needs no running means, unlike that of the paper


class PatchDiscriminator(nn.Module):
    """Images to a map of values, each of the patch that it sees: high for real ones.

    Args:
        channels: of the first layer, a multiple of 8; each further one doubles them, up to eight times as many.
        layers: convolutions of stride 2; two of stride 1 follow. Three layers see patches of 70 pixels a side.
    """

    def __init__(self, channels: int = 64, layers: int = 3) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(3, channels, 4, 2, 1), nn.LeakyReLU(SLOPE)]
        width = channels
        for layer in range(1, layers + 1):
            wider = channels * min(2**layer, LARGEST_FACTOR)
            parts += [
                nn.Conv2d(width, wider, 4, 2 if layer < layers else 1, 1, bias=False),
                nn.GroupNorm(wider // GROUP_CHANNELS, wider),
                nn.LeakyReLU(SLOPE),
            ]
            width = wider
        self.layers = nn.Sequential(*parts, nn.Conv2d(width, 1, 4, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] -> [B, 1, h, w]."""
        return self.layers(images)


def check_size(size: int, layers: int) -> None:
    """Raise ConfigError where images of `size` pixels a side are too small for so many layers."""
    if size // 2**layers < 3:
        raise ConfigError(
            f"gan_layers={layers} needs images of {3 * 2**layers} pixels a side; this run's have {size}. Give fewer"
        )


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the maps of real and of reconstructed images."""
    return (relu(1 - real).mean() + relu(1 + fake).mean()) / 2


def generator_loss(fake: Tensor) -> Tensor:
    """What the reconstruction lowers."""
    return -fake.mean()
