"""Perceptual distances of images (LPIPS; Zhang et al., Unreasonable Effectiveness of Deep Features, arXiv 1801.03924).

"LPIPS-MobileNetV2 (uniform weights)" is the paper's equation 1 over the stages of MobileNetV2 with every weight 1: no
people's judgements went into it, and it cannot be compared with the LPIPS of papers. That one, with AlexNet and learnt
weights, comes from torchmetrics, which needs torchvision and a download of its own.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import DataError, MissingDependencyError
from .features import IMAGENET_MEAN, IMAGENET_STD, MobileNetV2, load_mobilenet

STAGE_ENDS = (1, 3, 6, 13, 17)  # layers of MobileNetV2, the last of each resolution
BATCH_SIZE = 16
SMALL = 1e-10  # added to lengths, as in the authors' code

# Images [N, 3, S, S] in [-1, 1] -> distances [N] of each to the next one, of the last to the first.
RingDistance = Callable[[Tensor], Tensor]
NETWORKS = ("mobilenet", "alex")
TITLES = {"alex": "AlexNet", "vgg": "VGG-16"}
NAMES = {
    "mobilenet": "LPIPS-MobileNetV2 (uniform weights)",
    **{network: f"LPIPS-{title}" for network, title in TITLES.items()},
}


def perceptual_distance(network: str) -> RingDistance:
    """The distance by the name of its network, "mobilenet" or "alex". Its values are 0 for equal images, or larger.

    Raises:
        DataError: another name.
        MissingDependencyError: weights or packages are missing.
    """
    if network not in NETWORKS:
        raise DataError(f"no LPIPS network {network!r}; known are {', '.join(NETWORKS)}")
    if network == "alex":
        return _load_alex()
    mobilenet = load_mobilenet()
    return lambda images: mobilenet_distances(mobilenet, images)


@torch.inference_mode()
def mobilenet_distances(network: MobileNetV2, images: Tensor) -> Tensor:
    """Distances [N] over MobileNetV2's stages of images [N, 3, S, S] in [-1, 1] to the next one, cyclically."""
    parts = [stage_directions(network, part) for part in images.split(BATCH_SIZE)]
    total = torch.zeros(len(images))
    for stage in zip(*parts, strict=True):
        directions = torch.cat(stage)
        total += (directions - directions.roll(-1, dims=0)).square_().sum(1).mean((1, 2))
    return total


def stage_directions(network: MobileNetV2, images: Tensor) -> list[Tensor]:
    """The feature maps [B, C, H, W] of each stage, with length 1 at every place."""
    mean, deviation = (
        torch.tensor(values, device=images.device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    values = ((images + 1) / 2 - mean) / deviation
    maps = []
    for index, layer in zip(range(STAGE_ENDS[-1] + 1), network.features.children(), strict=False):
        values = layer(values)
        if index in STAGE_ENDS:
            maps.append(values / (values.norm(dim=1, keepdim=True) + SMALL))
    return maps


class DistanceMaps(nn.Module):
    """Where two images differ: the distance's parts by place, which add up to it. Gradients reach the images.

    Args:
        network: "mobilenet", "alex" or "vgg". Its weights stay as they are.

    Raises:
        DataError: another name.
        MissingDependencyError: weights or packages are missing.
    """

    def __init__(self, network: Literal["mobilenet", "alex", "vgg"]) -> None:
        super().__init__()
        if network not in NAMES:
            raise DataError(f"no LPIPS network {network!r}; known are {', '.join(NAMES)}")
        self.name = NAMES[network]
        if network == "mobilenet":
            self.network: nn.Module = load_mobilenet()
        else:
            learnt = _load_learnt(network).net
            learnt.spatial = True
            self.network = learnt
        self.requires_grad_(False)

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """Maps [B, 1, h, w], one or more and of several sizes, of images [B, 3, H, W] in [-1, 1]. The distance is the
        sum of their means."""
        if not isinstance(self.network, MobileNetV2):
            return [self.network(first, second)]
        pairs = zip(stage_directions(self.network, first), stage_directions(self.network, second), strict=True)
        return [(one - other).square().sum(1, keepdim=True) for one, other in pairs]


def _load_learnt(network: Literal["alex", "vgg"]) -> Any:
    """torchmetrics' metric with learnt weights."""
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        return LearnedPerceptualImagePatchSimilarity(net_type=network)
    # RuntimeError: torchvision of another torch. OSError: its weights cannot be fetched.
    except (ImportError, RuntimeError, OSError) as error:
        title = TITLES[network]
        raise MissingDependencyError(
            f"LPIPS with {title} needs torchmetrics, torchvision and {title}'s weights, which torchvision downloads "
            f"({' '.join(str(error).split())})"
        ) from error


def _load_alex() -> RingDistance:
    metric = _load_learnt("alex")

    @torch.inference_mode()
    def distances(images: Tensor) -> Tensor:
        pairs = zip(images.split(1), images.roll(-1, dims=0).split(1), strict=True)
        return torch.stack([metric(first, second) for first, second in pairs])

    return distances
