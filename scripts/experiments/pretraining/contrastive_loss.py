"""Training a CLIPTextModel against images, as CLIP does (arXiv 2103.00020): captions and images of a pair attract."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LatentEncoder(nn.Sequential):
    """Latents [B, channels, side, side] to embeddings [B, width]; where things are is kept up to the last layer."""

    def __init__(self, channels: int, side: int, width: int) -> None:
        super().__init__(
            nn.Conv2d(channels, 64, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(64, 96, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(96, 128, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(128 * math.ceil(side / 4) ** 2, width),
        )


class ContrastiveLoss(nn.Module):
    """Symmetric cross-entropy of telling the pairs of a batch, as a module so that it can be distributed.

    A text encoder that learns from the denoiser's loss alone ignores what changes that loss little: the colour of the
    background was learnt, the number of fingers was not. Telling images apart needs all of a caption.

    Args:
        text_encoder: a CLIPTextModel. image_encoder: images or latents to [B, width], width its hidden size.
    """

    def __init__(self, text_encoder: nn.Module, image_encoder: nn.Module) -> None:
        super().__init__()
        self.text_encoder, self.image_encoder = text_encoder, image_encoder
        width = text_encoder.config.hidden_size
        self.text_projection = nn.Linear(width, width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, latents: Tensor, input_ids: Tensor) -> dict[str, Tensor]:
        """`latents` [B, C, h, w]; `input_ids` [B, L], integers.

        Returns:
            "loss" and "accuracy" (the share of images whose nearest caption is their own or the same): scalars.
        """
        images = F.normalize(self.image_encoder(latents).float(), dim=1)
        texts = F.normalize(self.text_projection(self.text_encoder(input_ids).pooler_output).float(), dim=1)
        scores = self.log_scale.clamp(max=math.log(100)).exp() * images @ texts.T
        # Captions repeat: an image belongs to all captions of its batch that are the same as its own.
        same = (input_ids[:, None] == input_ids[None]).all(-1).float()
        target = same / same.sum(1, keepdim=True)
        loss = (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
        right = same.gather(1, scores.argmax(1, keepdim=True)).mean()
        return {"loss": loss, "accuracy": right.detach()}
