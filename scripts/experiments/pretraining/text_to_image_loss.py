"""The loss of a latent text-to-image model whose denoiser learns."""

import torch
from torch import Tensor, nn

from geopos_diffusers.finetuning.diffusion_loss import diffusion_loss, prediction_target
from geopos_diffusers.finetuning.loss_weighting import choose_weighting


class TextToImageLoss(nn.Module):
    """Denoising loss of a UNet2DConditionModel under a frozen CLIPTextModel, as a module so that it can be distributed.

    Args:
        scheduler: a DDPMScheduler; its prediction type says what the UNet learns.
        snr_gamma: of min-SNR weighting; None for none.
    """

    def __init__(self, unet: nn.Module, text_encoder: nn.Module, scheduler, snr_gamma: float | None) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder
        self.scheduler, self.weighting = scheduler, choose_weighting(snr_gamma=snr_gamma)

    def forward(self, latents: Tensor, noise: Tensor, timesteps: Tensor, input_ids: Tensor) -> dict[str, Tensor]:
        """`latents`, `noise` [B, C, H, W], scaled; `timesteps` [B] and `input_ids` [B, L], integers.

        Returns:
            "loss": a scalar.
        """
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        with torch.no_grad():
            text = self.text_encoder(input_ids)[0]
        prediction = self.unet(noisy, timesteps, text).sample
        target = prediction_target(self.scheduler, latents, noise, timesteps)
        return {"loss": diffusion_loss(prediction, target, self.scheduler, timesteps, self.weighting)}


def stratified_timesteps(count: int, limit: int, generator: torch.Generator, shift: float = 1.0) -> Tensor:
    """`count` integers in [0, limit), one in each of `count` equally likely strata: less variance in the loss.

    Args:
        shift: 1 for uniform timesteps; above 1 for more noise: a share u of the range becomes
            shift * u / (1 + (shift - 1) * u), as in section 5.3.2 of arXiv 2403.03206.
    """
    share = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    share = shift * share / (1 + (shift - 1) * share)
    return (share * limit).long().clamp(max=limit - 1)
