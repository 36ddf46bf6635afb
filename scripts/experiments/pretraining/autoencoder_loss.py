"""Training an AutoencoderKL: its loss, its measure, and the scale of its latents."""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AutoencoderLoss(nn.Module):
    """Reconstruction and KL loss of an AutoencoderKL, as a module so that it can be distributed and compiled.

    The reconstruction is measured in L1, on the values and on the differences of neighbouring pixels: the second term
    is what keeps thin fingers sharp. The KL term is a mean over latent elements.

    Args:
        gradient_weight: weight of the pixel differences. kl_weight: weight of the KL term.
        mixed_precision: whether an autocast around it applies to the autoencoder.
    """

    def __init__(self, vae: nn.Module, gradient_weight: float, kl_weight: float, mixed_precision: bool = False) -> None:
        super().__init__()
        self.vae, self.mixed_precision = vae, mixed_precision
        self.gradient_weight, self.kl_weight = gradient_weight, kl_weight

    def forward(self, pixels: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """`pixels` [B, 3, H, W] in [-1, 1], `noise` standard normal in the shape of the latents.

        Returns:
            "loss", "l1", "gradient" and "kl": scalars.
        """
        # Eight bits of mantissa are fewer than a pixel has.
        with nullcontext() if self.mixed_precision else torch.autocast(pixels.device.type, enabled=False):
            posterior = self.vae.encode(pixels).latent_dist
            decoded = self.vae.decode(posterior.mean + posterior.std * noise).sample
        error = decoded.float() - pixels
        l1 = error.abs().mean()
        gradient = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1.0 - posterior.logvar).mean()
        loss = l1 + self.gradient_weight * gradient + self.kl_weight * kl
        return {"loss": loss, "l1": l1.detach(), "gradient": gradient.detach(), "kl": kl.detach()}


@torch.no_grad()
def encode_means(vae: nn.Module, pixels: Tensor) -> Tensor:
    """Posterior means [B, C, h, w] of `pixels` [B, 3, H, W] in [-1, 1], not scaled."""
    return vae.encode(pixels).latent_dist.mean.float()


@torch.no_grad()
def reconstruct(vae: nn.Module, pixels: Tensor) -> Tensor:
    """`pixels` [B, 3, H, W] in [-1, 1] through the posterior mean and back, clamped to [-1, 1]."""
    return vae.decode(encode_means(vae, pixels)).sample.clamp(-1, 1)


def peak_signal_to_noise(images: Tensor, others: Tensor) -> Tensor:
    """PSNR in dB of each pair of images [B, 3, H, W] in [-1, 1] (peak to peak 2). Returns [B]."""
    return -10 * torch.log10(F.mse_loss(images / 2, others / 2, reduction="none").flatten(1).mean(1))


@torch.no_grad()
def center_latents(vae: nn.Module, mean: Tensor) -> None:
    """Move the latents of `vae` by -`mean` [C], inside its two 1x1 convolutions: reconstructions stay as they are.

    StableDiffusionPipeline scales latents but does not shift them, and a denoiser starts from noise of mean zero.
    """
    channels = len(mean)
    vae.quant_conv.bias[:channels] -= mean
    vae.post_quant_conv.bias += vae.post_quant_conv.weight[:, :, 0, 0] @ mean
