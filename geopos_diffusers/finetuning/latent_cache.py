"""Latents of a data set on the disk: each image is encoded once, and later runs read what is there."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from .image_text_data import ImageTextData
from .latents import encode_moments
from .tensor_shards import Item, TensorShards, make_shards, weights_digest


def cache_latents(
    data: ImageTextData, vae: Any, accelerator: Accelerator, folder: Path, batch_size: int, workers: int
) -> TensorShards:
    """Encode what is not in `folder` yet. All processes must call it.

    Shards are named after the autoencoder's weights, the encoded bytes of the images, and how each is cut out and
    scaled. Batches have exactly `batch_size` images, as in a training, since the last bits can depend on that.

    Returns:
        Items {"moments": [2 C, h, w] float32 (mean and log-variance of the latents), "sizes": [6], "row": []}.
    """
    config = {name: value for name, value in vae.config.items() if not name.startswith("_")}
    settings = f"latents 1 {weights_digest(vae)} {vae.dtype} {json.dumps(config, default=str, sort_keys=True)}"

    def compute(indices: range) -> tuple[Sequence[int], Iterator[Item]]:
        batches = full_batches(data, indices, batch_size)
        loader = DataLoader(data, batch_sampler=batches, num_workers=workers, generator=torch.Generator())
        items: dict[int, Item] = {}
        for batch, chosen in zip(loader, batches, strict=True):
            moments = encode_moments(vae, batch["pixels"].to(accelerator.device)).cpu()
            for place, index in enumerate(chosen):
                items[index] = {"moments": moments[place]} | {name: batch[name][place] for name in ("sizes", "row")}
        return range(len(indices)), (items[index] for index in indices)

    files = make_shards(folder, "latents", len(data), settings, data.content_digest, compute, accelerator)
    return TensorShards(files, ("moments", "sizes", "row"))


def full_batches(data: ImageTextData, indices: range, batch_size: int) -> list[list[int]]:
    """Batches of one size of image each; the last one of a size is filled up with its first image."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for index in indices:
        by_size.setdefault(data.size_of(index), []).append(index)
    batches = []
    for group in by_size.values():
        for start in range(0, len(group), batch_size):
            batch = group[start : start + batch_size]
            batches.append(batch + batch[:1] * (batch_size - len(batch)))
    return batches
