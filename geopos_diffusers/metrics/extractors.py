"""Networks whose features of images the scores of `quality` compare, by name.

"mobilenet" needs no download but the packaged one of 13 MB. "dinov2" and "clip" are Hub models, "inception" is the
network of the FID of papers; their weights are in no package registry, so they need the internet or a local folder.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import features, inception
from .hub_extractors import load_hub_model
from .wheel_files import file_sha256

BATCH_SIZE = 16
IDENTITY_DIGITS = 16  # of a SHA-256
HUB_IDS = {"dinov2": "facebook/dinov2-base", "clip": "openai/clip-vit-large-patch14-336"}


@dataclass(frozen=True)
class Extractor:
    """A network that turns images into features.

    name: goes with the scores' names, such as "MobileNetV2-224": scores of different features cannot be compared.
    width: D, the number of an image's features.
    to_pixels: image of any mode and size -> what `network` takes a batch of. network: [B, ...] -> [B, D].
    usual_images: images of each set that papers use with these features; None where no paper does.
    """

    name: str
    width: int
    to_pixels: Callable[[Image.Image], torch.Tensor]
    network: Callable[[torch.Tensor], torch.Tensor]
    usual_images: int | None

    def extract(self, images: Iterable[Image.Image]) -> np.ndarray:
        """Features [N, D] float32 of N images, which are taken from `images` batch by batch."""
        return features.extract_in_batches(self.to_pixels, self.network, images, self.width, BATCH_SIZE)


def extractor(name: str = "mobilenet") -> Extractor:
    """The extractor of a name.

    Args:
        name: "mobilenet", "dinov2", "clip", "inception"; or a local folder or the Hub id of a DINOv2 or CLIP model.

    Raises:
        MissingDependencyError: the weights, or a package that they need, are missing and cannot be fetched.
        DataError: a folder or Hub id of another kind of model.
    """
    if name == "mobilenet":
        return Extractor(
            features.EXTRACTOR, features.FEATURE_COUNT, features.to_pixels, features.load_mobilenet(), None
        )
    if name == "inception":
        network = inception.load_inception()
        first = partial(_first_output, network)
        return Extractor(inception.NAME, inception.FEATURE_COUNT, inception.to_bytes, first, inception.USUAL_IMAGES)
    path = HUB_IDS.get(name, name)
    model = load_hub_model(path)
    return Extractor(Path(path).resolve().name, model.width, model.prepare, model.network, model.usual_images)


def _first_output(network: Callable[[torch.Tensor], tuple[torch.Tensor, ...]], pixels: torch.Tensor) -> torch.Tensor:
    return network(pixels)[0]


def extractor_name(name: str) -> str:
    """The `Extractor.name` of a name, without loading the network."""
    known = {"mobilenet": features.EXTRACTOR, "inception": inception.NAME}
    return known.get(name) or Path(HUB_IDS.get(name, name)).name


def extractor_identity(name: str) -> str:
    """What features of an extractor depend on beside the image, such as "MobileNetV2-224 8f0f4e5994f4a374".

    Features with the same identity may be kept and compared. Of a Hub model it is the commit of the files that are
    used, of a folder the SHA-256 of its files.

    Raises:
        MissingDependencyError, DataError: as `extractor`, where a Hub model has to be fetched first.
    """
    if name == "mobilenet":
        return f"{features.EXTRACTOR} {features.WEIGHTS_SHA256[:IDENTITY_DIGITS]}"
    if name == "inception":
        return inception.NAME
    path = HUB_IDS.get(name, name)
    if Path(path).is_dir():
        total = hashlib.sha256()
        for file in sorted(file for file in Path(path).iterdir() if file.suffix in (".json", ".safetensors")):
            total.update(f"{file.name} {file_sha256(file)}\n".encode())
        return f"{Path(path).name} {total.hexdigest()[:IDENTITY_DIGITS]}"
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(path, "config.json"), str):
        extractor(name)
    config = try_to_load_from_cache(path, "config.json")
    commit = Path(config).parent.name if isinstance(config, str) else "unknown"
    return f"{Path(path).name} {commit}"
