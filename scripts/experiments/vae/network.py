"""A small convolutional variational autoencoder of images (Kingma and Welling, arXiv 1312.6114)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from geopos_diffusers.errors import ConfigError

from ..baselines.trial import Trial

SIZES = (32, 64)
SCORED_TOGETHER = 100  # images; more at once do not fit a processor's cache


@dataclass(frozen=True, kw_only=True)
class VaeTrial(Trial):
    """A training of a `Vae` with latents of `latent_size` numbers."""

    latent_size: int


class Vae(nn.Module):
    """Encoder and decoder of images [B, 3, S, S] in [-1, 1].

    Strided 4x4 convolutions with ReLU, each halving the side, and a linear layer to mean and log-variance of the
    latents; a linear layer and transposed 4x4 convolutions back. The output is the mean of a Gaussian in every value of
    a pixel and is not bounded.

    Args:
        widths: channels of the encoder's convolutions, in reverse those of the decoder.
        latent_size: numbers in a latent. size: S, 32 or 64.

    Raises:
        ConfigError: no or non-positive widths, more of them than the size can be halved, another size, or no latents.
    """

    def __init__(self, widths: Sequence[int], latent_size: int, size: int = 64) -> None:
        super().__init__()
        if size not in SIZES or latent_size < 1:
            raise ConfigError(
                f"size must be one of {', '.join(map(str, SIZES))}, latent_size at least 1; got {size}, {latent_size}"
            )
        if not widths or min(widths) < 1 or size % 2 ** len(widths):
            raise ConfigError(f"widths must be 1 to {size.bit_length() - 1} numbers >= 1; got {list(widths)}")
        self.latent_size = latent_size
        side, last = size // 2 ** len(widths), widths[-1]
        encoder: list[nn.Module] = []
        for inputs, outputs in pairwise((3, *widths)):
            encoder += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU()]
        self.encoder = nn.Sequential(*encoder, nn.Flatten(), nn.Linear(last * side**2, 2 * latent_size))
        decoder: list[nn.Module] = [nn.Linear(latent_size, last * side**2), nn.Unflatten(1, (last, side, side))]
        for inputs, outputs in pairwise((*reversed(widths), 3)):
            decoder += [nn.ReLU(), nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)]
        self.decoder = nn.Sequential(*decoder)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance [B, latent_size] each of q(z | x)."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return mean, log_variance

    def forward(self, images: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Decoded latents [B, 3, S, S], and the mean and log-variance [B, latent_size] that they were drawn with.

        Args:
            noise: standard normal [B, latent_size]. Without it, it comes from torch's global generator in training and
                is 0 in eval mode.
        """
        mean, log_variance = self.encode(images)
        if noise is None:
            noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        return self.decoder(mean + (log_variance / 2).exp() * noise), mean, log_variance

    @torch.no_grad()
    def decode_pictures(self, latents: Tensor) -> Tensor:
        """Images [B, 3, S, S], clamped to [-1, 1], on the CPU, of latents [B, latent_size] from anywhere."""
        device = next(self.parameters()).device
        parts = [self.decoder(part.to(device)) for part in latents.split(SCORED_TOGETHER)]
        return torch.cat(parts).clamp(-1, 1).cpu()


def negative_elbo(outputs: tuple[Tensor, Tensor, Tensor], images: Tensor, variance: float) -> dict[str, Tensor]:
    """The negative evidence lower bound in nats an image (arXiv 1312.6114, equation 3), mean over a batch.

    The decoder is a Gaussian of fixed `variance` for every value of a pixel, the latents' prior is standard normal.

    Returns:
        "loss", the sum of "reconstruction" and "kl". reconstruction is the squared error of an image by 2 `variance`:
        the Gaussian's normalising constant, 3 S^2 / 2 * ln(2 pi variance), is the same for all networks and left out,
        as it would decide what ratios of losses are.
    """
    decoded, mean, log_variance = outputs
    reconstruction = (decoded - images).square().flatten(1).sum(1).mean() / (2 * variance)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
    return {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}


@torch.no_grad()
def score_elbo(network: Vae, images: Tensor, variance: float, seed: int) -> dict[str, float]:
    """`negative_elbo` of all images [N, 3, S, S], with latents drawn once for each by a generator of this seed."""
    device = next(network.parameters()).device
    noise = torch.randn(len(images), network.latent_size, generator=torch.Generator().manual_seed(seed))
    totals = {"loss": 0.0, "reconstruction": 0.0, "kl": 0.0}
    for part, drawn in zip(images.split(SCORED_TOGETHER), noise.split(SCORED_TOGETHER), strict=True):
        part = part.to(device)
        for name, value in negative_elbo(network(part, drawn.to(device)), part, variance).items():
            totals[name] += value.item() * len(part) / len(images)
    return totals


@torch.no_grad()
def fit_latents(network: Vae, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [L] and a square root [L, L] of the covariance of the latents that images [N, 3, S, S] have: of the mixture
    of q(z | x) over them, on the CPU. It is the standard normal where the training has made them follow the prior.
    """
    device = next(network.parameters()).device
    parts = [network.encode(part.to(device)) for part in images.split(SCORED_TOGETHER)]
    means, log_variances = (torch.cat(values).cpu().double() for values in zip(*parts, strict=True))
    covariance = torch.cov(means.T, correction=0).reshape(2 * means.shape[1:]) + log_variances.exp().mean(0).diag()
    return means.mean(0).float(), torch.linalg.cholesky(covariance).float()


def interpolate(network: Vae, first: Tensor, last: Tensor, count: int) -> Tensor:
    """Pictures [count, 3, S, S] between two images [3, S, S], at equal steps between the means of their latents."""
    with torch.no_grad():
        ends = network.encode(torch.stack([first, last]).to(next(network.parameters()).device))[0].cpu()
    return network.decode_pictures(torch.lerp(ends[:1], ends[1:], torch.linspace(0, 1, count)[:, None]))
