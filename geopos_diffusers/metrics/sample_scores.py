"""Scores of a generator's samples beside real images in one feature space, and the features of small images."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import DataError
from .features import IMAGENET_MEAN, IMAGENET_STD, SMALL_EXTRACTOR, SMALL_SIDE, MobileNetV2
from .kid import kid
from .mode_coverage import fit_bins, mode_coverage
from .ms_ssim import mean_pairwise_ms_ssim
from .neighbourhoods import neighbourhoods
from .vendi import vendi_score

PIXEL_SIDE = 16  # finer detail is mostly noise to a distance of pixels, and costs four times as much


def pixel_features(images: Tensor) -> np.ndarray:
    """Pixels of images [N, C, S, S] in [-1, 1], averaged to 16x16: [N, 256 C] float32."""
    return functional.adaptive_avg_pool2d(images.float(), min(PIXEL_SIDE, images.shape[-1])).flatten(1).numpy()


@torch.inference_mode()
def mobilenet_features(network: MobileNetV2, images: Tensor, batch_size: int = 64) -> np.ndarray:
    """MobileNetV2's features [N, 1280] float32 of images [N, 3, S, S] in [-1, 1], resized to 96 pixels (bilinear)."""
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    parts = []
    for part in images.split(batch_size):
        larger = functional.interpolate(part, size=(SMALL_SIDE, SMALL_SIDE), mode="bilinear")
        parts.append(network(((larger + 1) / 2 - mean) / deviation).numpy())
    return np.concatenate(parts)


class SampleScores:
    """Scores samples' features beside those of real images, [N, D].

    Args:
        bins: number of k-means bins; None for sets too small to fill them, which have the Vendi score alone.
        seed: of the bins.

    Raises:
        DataError: too few images for the bins.
    """

    def __init__(self, real: np.ndarray, bins: int | None, seed: int) -> None:
        self.real, self.center = real, real.mean(0)
        self.bins = None if bins is None else fit_bins(real, bins, seed)

    def __call__(self, samples: np.ndarray) -> dict[str, float]:
        """Scores of features [M, D] by name: "vendi", and with bins those of `ModeCoverage` and `Neighbourhoods`.

        The Vendi score's cosine is that of features without the real images' mean: raw ones all point the same way.

        Raises:
            DataError: values that are not finite, or features of another length.
        """
        if not np.isfinite(samples).all():
            raise DataError("the samples' features are not all finite: the training has diverged")
        scores = {"vendi": vendi_score(samples - self.center)}
        if self.bins is None:
            return scores
        return {**asdict(mode_coverage(samples, self.bins)), **asdict(neighbourhoods(samples, self.real)), **scores}


def half_scores(real: np.ndarray, bins: int, seed: int) -> dict[str, float]:
    """What real images themselves reach: scores of a random half of features [N, D] beside the other half."""
    order = np.random.default_rng(seed).permutation(len(real))
    first, second = real[order[: len(real) // 2]], real[order[len(real) // 2 :]]
    return SampleScores(first, bins, seed)(second)


class ImageScores:
    """Scores of samples [N, 3, S, S] in [-1, 1] beside real images: by their pixels and by MobileNetV2's features.

    Args:
        real: images [M, 3, S, S] in [-1, 1]. pairs: of samples, for the mean MS-SSIM.
        seed: of the pairs, of the bins and of KID. network: without it, there are no "MobileNetV2-96_..." scores.
        bins: as of `SampleScores`.

    Raises:
        DataError: too few images for the bins.
    """

    def __init__(
        self, real: Tensor, pairs: int, seed: int, network: MobileNetV2 | None = None, bins: int | None = None
    ) -> None:
        self.pairs, self.seed = pairs, seed
        self.features: dict[str, Callable[[Tensor], np.ndarray]] = {"": pixel_features}
        if network is not None:
            self.features[f"{SMALL_EXTRACTOR}_"] = partial(mobilenet_features, network)
        self.by_features = {
            prefix: SampleScores(features(real), bins, seed) for prefix, features in self.features.items()
        }

    def __call__(self, samples: Tensor, mobilenet: bool = True) -> dict[str, float]:
        """ "ms_ssim", the scores of `SampleScores`, and with a network those and "kid" as "MobileNetV2-96_...".

        Args:
            mobilenet: False leaves out what needs the network, which takes most of the time.

        Raises:
            DataError: values that are not finite.
        """
        if not samples.isfinite().all():
            raise DataError("the samples are not all finite: the training has diverged")
        scores = {"ms_ssim": mean_pairwise_ms_ssim(samples, self.pairs, self.seed)}
        for prefix, by_features in self.by_features.items():
            if prefix and not mobilenet:
                continue
            features = self.features[prefix](samples)
            scores |= {f"{prefix}{name}": value for name, value in by_features(features).items()}
            if prefix:
                scores[f"{prefix}kid"] = kid(features, by_features.real, self.seed).value  # type: ignore[assignment]
        return scores

    def of_halves(self, bins: int) -> dict[str, float]:
        """What real images themselves reach, with `bins`: `half_scores` of each kind of features."""
        return {
            f"{prefix}{name}": value
            for prefix, by_features in self.by_features.items()
            for name, value in half_scores(by_features.real, bins, self.seed).items()
        }
