import math

import numpy as np
import pytest
import torch
from PIL import Image

from geopos_diffusers.errors import DataError, MissingDependencyError
from geopos_diffusers.metrics.bootstrap import Interval
from geopos_diffusers.metrics.diversity import diversity_scores, ring_interval, ring_ms_ssim, to_tensor
from geopos_diffusers.metrics.lpips import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    STAGE_ENDS,
    mobilenet_distances,
    perceptual_distance,
)
from geopos_diffusers.metrics.ms_ssim import ms_ssim


def pictures(count: int, seed: int = 0, contrast: float = 1.0) -> list[Image.Image]:
    """Blots of colour: 4x4 random pixels, enlarged."""
    generator = np.random.default_rng(seed)
    values = 127.5 + contrast * generator.uniform(-127, 127, (count, 4, 4, 3))
    return [Image.fromarray(value.astype(np.uint8)).resize((48, 40), Image.Resampling.BILINEAR) for value in values]


class TestPerceptualDistance:
    def test_agrees_with_loops_over_the_stages(self, mobilenet):
        images = torch.stack([to_tensor(image)[:, :32, :32] for image in pictures(3)])
        distances = mobilenet_distances(mobilenet, images)
        for index in range(3):
            pair = images[[index, (index + 1) % 3]]
            pixels = ((pair + 1) / 2 - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[
                :, None, None
            ]
            total = 0.0
            for end in STAGE_ENDS:
                first, second = mobilenet.features[: end + 1](pixels).double().numpy()
                height, width = first.shape[1:]
                for row in range(height):
                    for column in range(width):
                        a, b = first[:, row, column], second[:, row, column]
                        difference = a / math.sqrt(float(a @ a)) - b / math.sqrt(float(b @ b))
                        total += float(difference @ difference) / (height * width)
            assert distances[index].item() == pytest.approx(total, rel=1e-3)

    def test_stages_are_the_last_of_each_resolution(self, mobilenet):
        sizes = [mobilenet.features[: end + 1](torch.zeros(1, 3, 64, 64)).shape[-1] for end in STAGE_ENDS]
        following = [mobilenet.features[: end + 2](torch.zeros(1, 3, 64, 64)).shape[-1] for end in STAGE_ENDS[:-1]]
        assert sizes == [32, 16, 8, 4, 2]
        assert following == sizes[1:]

    def test_equal_images_and_noise(self, mobilenet):
        clean = torch.stack([to_tensor(image) for image in pictures(1)])
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        values = [
            mobilenet_distances(mobilenet, torch.cat([clean, (clean + level * noise).clamp(-1, 1)]))[0].item()
            for level in (0, 0.05, 0.2, 0.5)
        ]
        assert values == sorted(values)
        assert values[0] == pytest.approx(0, abs=1e-6)

    def test_other_networks(self):
        with pytest.raises(DataError, match="known are mobilenet, alex"):
            perceptual_distance("vgg")
        try:
            import torchvision  # noqa: F401
        except ImportError:
            with pytest.raises(MissingDependencyError, match="needs torchmetrics, torchvision"):
                perceptual_distance("alex")


class TestRing:
    def test_similarities_are_of_neighbours(self):
        images = torch.stack([to_tensor(image) for image in pictures(19)])
        values = ring_ms_ssim(images)
        assert values.shape == (19,)
        for index in (0, 15, 16, 18):
            expected = ms_ssim(images[index : index + 1], images[[(index + 1) % 19]])
            assert values[index].item() == pytest.approx(expected.item(), abs=1e-5)

    def test_interval_covers_the_mean(self):
        """Distances of neighbours in a ring of normal points: |a - b| of N(0, 1) has the mean 2 / sqrt(pi)."""
        generator = np.random.default_rng(0)
        covered = 0
        for _ in range(400):
            points = generator.normal(size=60)
            interval = ring_interval(np.abs(points - np.roll(points, -1)), 0, math.inf)
            covered += interval.low <= 2 / math.sqrt(math.pi) <= interval.high
        assert 0.91 <= covered / 400 <= 0.98

    def test_variance_by_hand(self):
        # Deviations 3, 1, -1, -3: squares 20; neighbours 3 - 1 + 3 - 9 = -4, twice. 12 is below the squares' 20.
        assert ring_interval(np.array([5.0, 3, 1, -1]), -9, 9).high == pytest.approx(
            2 + 1.96 * math.sqrt(20) / 4, rel=1e-4
        )
        # Deviations 2, 2, -1, -3, 0: squares 18; neighbours 4 - 2 + 3 + 0 + 0 = 5, twice.
        high = ring_interval(np.array([2.0, 2, -1, -3, 0]), -9, 9).high
        assert high == pytest.approx(1.96 * math.sqrt(28) / 5, rel=1e-4)


@pytest.mark.usefixtures("mobilenet")
class TestScores:
    def test_less_contrast_is_less_diverse(self):
        varied, alike = diversity_scores(pictures(24), 0), diversity_scores(pictures(24, contrast=0.2), 0)
        assert list(varied) == ["ms_ssim", "lpips_mobilenet"]
        assert varied["ms_ssim"].high < alike["ms_ssim"].low
        assert varied["lpips_mobilenet"].low > alike["lpips_mobilenet"].high

    def test_equal_images(self):
        scores = diversity_scores(pictures(1) * 5, 0)
        assert scores["ms_ssim"].value == pytest.approx(1, abs=1e-4)
        assert scores["lpips_mobilenet"].value == pytest.approx(0, abs=1e-6)

    def test_few_images(self):
        assert diversity_scores(pictures(1), 0)["ms_ssim"] == Interval(None, None, None)
        two = diversity_scores(pictures(2), 0)["lpips_mobilenet"]
        assert two.value > 0
        assert (two.low, two.high) == (None, None)

    def test_seed_and_maximum(self):
        images = pictures(12)
        assert diversity_scores(images, 1, maximum=5) == diversity_scores(images, 1, maximum=5)
        assert diversity_scores(images, 1, maximum=5) != diversity_scores(images, 2, maximum=5)
