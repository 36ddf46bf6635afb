"""The perceptual distance of reconstructions: the part of `metrics` that a loss takes."""

from typing import Literal

import torch
from torch import Tensor, nn

from ..metrics.lpips import DistanceMaps


class PerceptualLoss(nn.Module):
    """LPIPS with a network by its name, differentiable, in float32.

    Args:
        network: "mobilenet", "alex" or "vgg".

    Attributes:
        name: of the distance, such as "LPIPS-MobileNetV2 (uniform weights)".

    Raises:
        MissingDependencyError: weights or packages are missing.
    """

    def __init__(self, network: Literal["mobilenet", "alex", "vgg"]) -> None:
        super().__init__()
        self.maps = DistanceMaps(network).eval()
        self.name = self.maps.name

    def train(self, mode: bool = True) -> "PerceptualLoss":
        return super().train(False)  # its normalisation keeps the means that it was trained to

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """Mean distance of images [B, 3, H, W] in [-1, 1] to others."""
        return torch.stack([values.mean() for values in self.maps(images, others)]).sum()
