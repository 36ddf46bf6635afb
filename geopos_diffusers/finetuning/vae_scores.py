"""Reconstructions of held-out images by the trained autoencoder beside those by the untouched one.

Scores are of the whole image, of a ring along its border, where padding errs, and of the centre within. Beside
`perceptual_loss.py` and `hand_scores.py` this is the only file here that imports `metrics`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from ..metrics.bootstrap import bootstrap_means
from ..metrics.extractors import Extractor, extractor
from ..metrics.kid import MINIMUM_IMAGES, kid

REGIONS = ("image", "ring", "centre")
MEASURES = ("psnr", "l1", "lpips")  # in dB; mean absolute difference of pixels in [0, 1]; the distance's own unit
RING_SIZE = 256  # pixels a side of the image that a ring's width is given for
LARGEST_PSNR = 100.0  # dB, of equal pixels
INTERVAL_SEED = 0
BATCH_SIZE = 16
ERROR_GAIN = 4  # of the maps of errors

Reconstruct = Callable[[Tensor], Tensor]


def ring_width(ring: int, size: int) -> int:
    """Width in pixels of a ring of an image of `size` pixels a side: `ring` where that is 256, in proportion else."""
    return max(1, round(ring * size / RING_SIZE))


def region_masks(size: int, width: int) -> dict[str, Tensor]:
    """[size, size] float32 of 0 and 1 by region. The ring holds all pixels nearer to a border than `width`."""
    centre = torch.zeros(size, size)
    centre[width : size - width, width : size - width] = 1
    return {"image": torch.ones(size, size), "ring": 1 - centre, "centre": centre}


def region_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Means [B] of maps [B, 1, h, w] over a region. A coarser place counts by its share of the mask [H, W]."""
    weights = adaptive_avg_pool2d(mask[None, None].to(values.device), (values.shape[-2], values.shape[-1]))
    return (values * weights).sum((1, 2, 3)) / weights.sum()


class HeldOutImages:
    """Images that reconstructions are scored on, and the scores of the untouched autoencoder.

    Args:
        pixels: [N, 3, S, S] in [-1, 1].
        ring: width of the ring in pixels of a 256 px image.
        perceptual: the maps of a perceptual distance, see `metrics.lpips.DistanceMaps`; None for no such scores.
        kid: whether distances of the sets (KID) are scored.
    """

    def __init__(self, pixels: Tensor, ring: int, perceptual: nn.Module | None, kid: bool) -> None:
        self.pixels, self.perceptual = pixels, perceptual
        size = pixels.shape[-1]
        self.width = ring_width(ring, size)
        self.masks = region_masks(size, self.width)
        self.extractor: Extractor | None = extractor("mobilenet") if kid and len(pixels) >= MINIMUM_IMAGES else None
        self.features = self._features(pixels)
        self.untouched: dict[str, np.ndarray] = {}
        self.trained: dict[str, np.ndarray] = {}
        self.untouched_images: Tensor | None = None
        self.untouched_features: np.ndarray | None = None

    def remember_untouched(self, reconstruct: Reconstruct) -> None:
        """Score the autoencoder as it is before the training."""
        self.untouched_images = self._reconstruct(reconstruct)
        self.untouched = self._scores(self.untouched_images)
        self.untouched_features = self._features(self.untouched_images)

    def compare(self, reconstruct: Reconstruct) -> tuple[dict[str, Any], Tensor]:
        """Scores of the trained autoencoder beside the untouched one, JSON-ready, and its reconstructions.

        "psnr", "l1" and "lpips" hold for each region the means and the difference, trained minus untouched, with its
        95% interval (bootstrap over the images, paired), and "ring_minus_centre", the difference of these differences.
        """
        images = self._reconstruct(reconstruct)
        trained = self.trained = self._scores(images)
        found: dict[str, Any] = {
            "images": len(images),
            "size": self.pixels.shape[-1],
            "ring_pixels": self.width,
            "lpips_name": getattr(self.perceptual, "name", None),
        }
        for measure in MEASURES:
            if f"{measure}_image" not in trained:
                continue
            changes = {
                region: trained[f"{measure}_{region}"] - self.untouched[f"{measure}_{region}"] for region in REGIONS
            }
            changes["ring_minus_centre"] = changes["ring"] - changes["centre"]
            intervals = bootstrap_means(np.stack([*changes.values()], axis=1), seed=INTERVAL_SEED)
            differences = {name: asdict(value) for name, value in zip(changes, intervals, strict=True)}
            found[measure] = {
                region: {
                    "untouched": float(self.untouched[f"{measure}_{region}"].mean()),
                    "trained": float(trained[f"{measure}_{region}"].mean()),
                    "difference": differences[region],
                }
                for region in REGIONS
            }
            found[measure]["ring_minus_centre"] = differences["ring_minus_centre"]
        if self.features is not None:
            sets = {"untouched": self.untouched_features, "trained": self._features(images)}
            found["kid"] = {
                name: asdict(kid(features, self.features, INTERVAL_SEED))
                for name, features in sets.items()
                if features is not None
            }
            found["kid_name"] = f"KID-{self.extractor.name}" if self.extractor else None
        return found, images

    @torch.no_grad()
    def _reconstruct(self, reconstruct: Reconstruct) -> Tensor:
        parts = [reconstruct(part).float().nan_to_num().clamp(-1, 1).cpu() for part in self.pixels.split(BATCH_SIZE)]
        return torch.cat(parts)

    @torch.no_grad()
    def _scores(self, images: Tensor) -> dict[str, np.ndarray]:
        """[N] values by "MEASURE_REGION"."""
        rows: dict[str, list[Tensor]] = {}
        for part, original in zip(images.split(BATCH_SIZE), self.pixels.split(BATCH_SIZE), strict=True):
            error = (part - original) / 2
            squared, absolute = (value.mean(1, keepdim=True) for value in (error.square(), error.abs()))
            maps = [] if self.perceptual is None else self._maps(part, original)
            for region, mask in self.masks.items():
                mean = region_mean(squared, mask).clamp(min=10 ** (-LARGEST_PSNR / 10))
                rows.setdefault(f"psnr_{region}", []).append(-10 * mean.log10())
                rows.setdefault(f"l1_{region}", []).append(region_mean(absolute, mask))
                if maps:
                    total = torch.stack([region_mean(values, mask) for values in maps]).sum(0)
                    rows.setdefault(f"lpips_{region}", []).append(total)
        return {name: torch.cat(values).double().numpy() for name, values in rows.items()}

    def _maps(self, images: Tensor, others: Tensor) -> list[Tensor]:
        assert self.perceptual is not None
        device = next(self.perceptual.parameters()).device
        return [values.cpu() for values in self.perceptual(images.to(device), others.to(device))]

    def _features(self, images: Tensor) -> np.ndarray | None:
        return None if self.extractor is None else self.extractor.extract([*map(picture, images)])

    def strips(self, images: Tensor, count: int) -> tuple[list[Image.Image], list[str]]:
        """Rows of `count` of the images that were compared last, evenly spaced, with captions.

        A row holds the original, both reconstructions and their errors.
        """
        assert self.untouched_images is not None
        pictures, captions = [], []
        count = min(count, len(images))
        for index in (number * len(images) // count for number in range(count)):
            original, before, after = self.pixels[index], self.untouched_images[index], images[index]
            errors = [((image - original).abs() * ERROR_GAIN - 1).clamp(max=1) for image in (before, after)]
            pictures.append(picture(torch.cat([original, before, after, *errors], dim=2)))
            captions.append(
                f"original | untouched {self.untouched['psnr_image'][index]:.2f} dB | "
                f"trained {self.trained['psnr_image'][index]:.2f} dB | errors x{ERROR_GAIN} of both"
            )
        return pictures, captions


def picture(pixels: Tensor) -> Image.Image:
    """[3, H, W] in [-1, 1] as an image of 8 bits."""
    values = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).numpy())


def logged(scores: dict[str, Any], regions: Sequence[str] = REGIONS) -> dict[str, float]:
    """The numbers of `HeldOutImages.compare` that are logged, by name: means and differences to the untouched."""
    found = {}
    for measure in MEASURES:
        for region in regions if measure in scores else ():
            name = measure if region == "image" else f"{measure}_{region}"
            found[name] = scores[measure][region]["trained"]
            found[f"{name}_difference"] = scores[measure][region]["difference"]["value"]
    if "kid" in scores:
        found["kid"] = scores["kid"]["trained"]["value"]
    return found
