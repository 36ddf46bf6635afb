"""How well a linear probe reads a pixel's place from the UNet's features: ridge regression of x and y, and R^2."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .encoded_images import EncodedImages

PIXELS = 64  # of each image, drawn at random
RIDGE = 0.1  # beside features of variance 1


def named_blocks(unet: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """What features are read after, in the order in which they are computed."""
    yield "conv_in", unet.conv_in
    yield from ((f"down_blocks.{index}", block) for index, block in enumerate(unet.down_blocks))
    yield "mid_block", unet.mid_block
    yield from ((f"up_blocks.{index}", block) for index, block in enumerate(unet.up_blocks))


def block_features(images: EncodedImages) -> dict[str, Tensor]:
    """Features [N, C, h, w] after each block of the UNet, at middle noise."""
    found: dict[str, list[Tensor]] = {}
    handles = []
    for name, block in named_blocks(images.model):

        def keep(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
            found.setdefault(name, []).append(output[0] if isinstance(output, tuple) else output)

        handles.append(block.register_forward_hook(keep))
    try:
        images.run_at_middle_noise()
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(parts) for name, parts in found.items()}


def sample_pixels(features: Tensor, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, n, C] of n random pixels an image [N, C, h, w], and their places [N, n, 2], x and y, -1 to 1."""
    count, _, height, width = features.shape
    chosen = np.stack([rng.permutation(height * width)[:PIXELS] for _ in range(count)])
    rows = features.flatten(2).transpose(1, 2).double().numpy()
    y, x = np.divmod(chosen, width)
    places = np.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], axis=-1)
    return np.take_along_axis(rows, chosen[..., None], axis=1), places


def fit_ridge(features: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, deviation, weights and offset of a ridge regression of targets [M, T] from features [M, C].

    A prediction is (features - mean) / deviation @ weights + offset.
    """
    mean, deviation, offset = features.mean(0), features.std(0), targets.mean(0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    rows = (features - mean) / deviation
    gram = rows.T @ rows / len(rows) + RIDGE * np.eye(rows.shape[1])
    return mean, deviation, np.linalg.solve(gram, rows.T @ (targets - offset) / len(rows)), offset


def decoded_places(features: Tensor, seed: int = 0) -> tuple[float, float]:
    """R^2 of x and y from the features [N, C, h, w]: fitted on every other image and scored on the rest.

    1 where the place can be read exactly, 0 or less where features tell nothing of it.
    """
    rows, places = sample_pixels(features, np.random.default_rng(seed))
    train, test = (slice(start, None, 2) for start in (0, 1))
    mean, deviation, weights, offset = fit_ridge(rows[train].reshape(-1, rows.shape[2]), places[train].reshape(-1, 2))
    predicted = ((rows[test] - mean) / deviation) @ weights + offset
    truth = places[test]
    errors = (truth - predicted).reshape(-1, 2)
    spread = (truth - truth.mean((0, 1))).reshape(-1, 2)
    x, y = 1 - (errors**2).sum(0) / (spread**2).sum(0)
    return float(x), float(y)


def position_scores(images: EncodedImages, size: int) -> dict[str, float]:
    """R^2 of x and y after each block, as "mid_block 64 px x". size: of the images, in pixels."""
    scores = {}
    for block, features in block_features(images).items():
        for axis, value in zip("xy", decoded_places(features), strict=True):
            scores[f"{block} {size} px {axis}"] = value
    return scores
