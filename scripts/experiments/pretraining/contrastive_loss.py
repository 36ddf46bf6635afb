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

    def scores(self, images: Tensor, input_ids: Tensor) -> Tensor:
        """Scaled cosines [B, N] of embedded images [B, width] and captions [N, L]."""
        texts = F.normalize(self.text_projection(self.text_encoder(input_ids).pooler_output).float(), dim=1)
        return self.log_scale.clamp(max=math.log(100)).exp() * images @ texts.T

    def forward(self, latents: Tensor, input_ids: Tensor, wrong_ids: Tensor | None = None) -> dict[str, Tensor]:
        """`latents` [B, C, h, w]; `input_ids` [B, L], integers.

        Args:
            wrong_ids: [B, L], a caption for each image that is wrong in one word, to be told from its own too. Where it
                is the same as its own, it does not count.

        Returns:
            "loss" and "accuracy" (the share of images whose nearest caption is their own or the same): scalars. With
            `wrong_ids` also "told": of the images that have a wrong one, the share nearer to their own; 0 of none.
        """
        images = F.normalize(self.image_encoder(latents).float(), dim=1)
        if wrong_ids is None:
            scores = self.scores(images, input_ids)
        else:
            scores, wrong = self.scores(images, torch.cat([input_ids, wrong_ids])).chunk(2, dim=1)
        # Captions repeat: an image belongs to all captions of its batch that are the same as its own.
        same = (input_ids[:, None] == input_ids[None]).all(-1).float()
        target = same / same.sum(1, keepdim=True)
        right = {"accuracy": same.gather(1, scores.argmax(1, keepdim=True)).mean().detach()}
        if wrong_ids is None:
            loss = (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
            return {"loss": loss, **right}
        counts, wrong = (input_ids != wrong_ids).any(-1), wrong.diagonal()
        told = ((scores.diagonal() > wrong) & counts).sum() / counts.sum().clamp(min=1)
        among = torch.cat([scores, wrong.masked_fill(~counts, -1e4)[:, None]], dim=1)
        loss = (F.cross_entropy(among, F.pad(target, (0, 1))) + F.cross_entropy(scores.T, target)) / 2
        return {"loss": loss, **right, "told": told}
