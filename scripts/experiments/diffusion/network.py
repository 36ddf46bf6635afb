"""Denoisers of latents that learn from random weights in minutes: a UNet and transformers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DiTTransformer2DModel, UNet2DModel
from torch import Tensor, nn

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.finetuning.denoising_loss import spread_levels

from ..baselines.trial import Trial

UNET, TRANSFORMER, UNPLACED = "unet", "transformer", "transformer-without-positions"
NETWORKS = (UNET, TRANSFORMER, UNPLACED)
CHANNELS, SIDE = 8, 16  # of the packaged models' latents
HEAD = 32  # channels of an attention head
NORM_GROUPS = 8
SCHEDULE = {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 1000}
TOGETHER = 64  # latents at a time outside of training


@dataclass(frozen=True, kw_only=True)
class DiffusionTrial(Trial):
    """A training of a `Denoiser`; network: one of NETWORKS."""

    network: str


class Denoiser(nn.Module):
    """Predicts the noise in latents [B, 8, 16, 16] (arXiv 2006.11239), with the cosine schedule of arXiv 2102.09672.

    Args:
        network: "unet": `UNet2DModel` with a block of each width, the last one with self-attention.
            "transformer": `DiTTransformer2DModel` (arXiv 2212.09748) of patches of 2x2 latents, with the fixed sines
            and cosines of their positions; the patch embedding is its only convolution.
            "transformer-without-positions": the same without these. To such a network an image is a bag of patches.
        widths: channels of the blocks, all the same in a transformer.

    Raises:
        ConfigError: another network, or widths that it cannot have.
    """

    def __init__(self, network: str, widths: Sequence[int]) -> None:
        super().__init__()
        if network not in NETWORKS:
            raise ConfigError(f"network must be one of {', '.join(NETWORKS)}; got {network!r}")
        self.model = _unet(widths) if network == UNET else _transformer(widths, network == TRANSFORMER)
        self.scheduler = DDPMScheduler(**SCHEDULE)

    def forward(
        self, clean: Tensor, noise: Tensor | None = None, timesteps: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The predicted and the added noise [B, 8, 16, 16] of clean latents.

        Args:
            noise: standard normal, as `clean`. timesteps: [B]. Without them, both come from torch's global generator.
        """
        noise = torch.randn_like(clean) if noise is None else noise
        if timesteps is None:
            timesteps = torch.randint(self.scheduler.config.num_train_timesteps, (len(clean),), device=clean.device)
        return self.predict(self.scheduler.add_noise(clean, noise, timesteps), timesteps), noise

    def predict(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """The noise [B, 8, 16, 16] of noisy latents at timesteps [B]."""
        if isinstance(self.model, UNet2DModel):
            return self.model(noisy, timesteps).sample
        only_class = torch.zeros(len(noisy), dtype=torch.long, device=noisy.device)
        return self.model(noisy, timestep=timesteps, class_labels=only_class).sample

    @torch.no_grad()
    def sample(self, noise: Tensor, steps: int) -> Tensor:
        """Latents [N, 8, 16, 16] from noise of this shape, by DDIM (arXiv 2010.02502), on the CPU."""
        scheduler = DDIMScheduler(**SCHEDULE, clip_sample=False, timestep_spacing="trailing")
        scheduler.set_timesteps(steps)
        device, parts = next(self.parameters()).device, []
        for part in noise.split(TOGETHER):
            latents = part.to(device)
            for timestep in scheduler.timesteps:
                predicted = self.predict(latents, timestep.to(device).expand(len(latents)))
                latents = scheduler.step(predicted, timestep, latents).prev_sample
            parts.append(latents.cpu())
        return torch.cat(parts)


def _unet(widths: Sequence[int]) -> UNet2DModel:
    if not widths or min(widths) < 1 or any(width % NORM_GROUPS for width in widths):
        raise ConfigError(f"widths must be one or more multiples of {NORM_GROUPS}; got {list(widths)}")
    plain = len(widths) - 1
    return UNet2DModel(
        sample_size=SIDE,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=tuple(widths),
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
        norm_num_groups=NORM_GROUPS,
        attention_head_dim=NORM_GROUPS,
    )


def _transformer(widths: Sequence[int], positions: bool) -> DiTTransformer2DModel:
    if not widths or len(set(widths)) > 1 or widths[0] < 1 or widths[0] % HEAD:
        raise ConfigError(f"widths must be equal multiples of {HEAD}, one for each block; got {list(widths)}")
    model = DiTTransformer2DModel(
        num_attention_heads=widths[0] // HEAD,
        attention_head_dim=HEAD,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=len(widths),
        sample_size=SIDE,
        patch_size=2,
        num_embeds_ada_norm=1,
    )
    for block in model.transformer_blocks:  # there is only one class, and no guidance
        block.norm1.emb.class_embedder.dropout_prob = 0.0
    if not positions:
        model.pos_embed.pos_embed = None
    return model


def noise_error(outputs: tuple[Tensor, Tensor], targets: Tensor) -> dict[str, Tensor]:
    """ "loss", the mean squared error of the predicted noise; `targets` is not read: the noise is drawn with it."""
    predicted, noise = outputs
    return {"loss": (predicted - noise).square().mean()}


@torch.no_grad()
def held_out_error(network: Denoiser, clean: Tensor, seed: int) -> float:
    """`noise_error` of latents [N, 8, 16, 16], each at a timestep and noise of its own, which `seed` gives."""
    generator = torch.Generator().manual_seed(seed)
    timesteps = spread_levels(len(clean), network.scheduler.config.num_train_timesteps, generator)
    noise = torch.randn(clean.shape, generator=generator)
    device, total = next(network.parameters()).device, 0.0
    for values in zip(*(tensor.split(TOGETHER) for tensor in (clean, noise, timesteps)), strict=True):
        part, drawn, at = (tensor.to(device) for tensor in values)
        total += noise_error(network(part, drawn, at), part)["loss"].item() * len(part)
    return total / len(clean)
