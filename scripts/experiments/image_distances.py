"""How far drawn images are from photographs, in features that need no download."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from geopos_diffusers.metrics.extractors import extractor
from geopos_diffusers.metrics.fid import frechet_distance
from geopos_diffusers.metrics.kid import kid


class ImageDistances:
    """Kernel and Fréchet distance in MobileNetV2's features. photographs: what drawn images are compared with."""

    def __init__(self, photographs: Sequence[Image.Image]) -> None:
        self.network = extractor("mobilenet")
        self.real = self.features(photographs)

    def measure(self, images: Sequence[Image.Image]) -> tuple[float | None, float]:
        """Both distances; the kernel distance is None of too few images."""
        drawn = self.features(images)
        return kid(drawn, self.real, 0).value, frechet_distance(drawn, self.real)

    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self.network.extract(image.convert("RGB") for image in images)
