import numpy as np
import pytest
import torch

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.ms_ssim import STABILITY, WEIGHTS, mean_pairwise_ms_ssim, ms_ssim


def images(count: int, size: int = 32, seed: int = 0) -> torch.Tensor:
    coarse = torch.rand(count, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")


def test_equal_images_have_1():
    torch.testing.assert_close(ms_ssim(images(3), images(3)), torch.ones(3))


def test_flat_images_by_hand():
    # Grey 0.25 beside 0.75 has no contrast, so only the luminance of the last scale counts.
    low, high = torch.full((1, 1, 32, 32), -0.5), torch.full((1, 1, 32, 32), 0.5)
    luminance = (2 * 0.25 * 0.75 + STABILITY[0]) / (0.25**2 + 0.75**2 + STABILITY[0])
    for scales in (1, 2, 3):
        weight = WEIGHTS[scales - 1] / sum(WEIGHTS[:scales])
        assert ms_ssim(low, high, scales).item() == pytest.approx(luminance**weight, rel=1e-4)


def test_agrees_with_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.image")
    first, second = images(4, 128), 0.7 * images(4, 128) + 0.3 * images(4, 128, seed=1)
    weights = tuple(weight / sum(WEIGHTS[:3]) for weight in WEIGHTS[:3])
    for index in range(4):
        theirs = functional.multiscale_structural_similarity_index_measure(
            (first[index : index + 1] + 1) / 2, (second[index : index + 1] + 1) / 2, kernel_size=7, sigma=1.5,
            betas=weights, data_range=1.0, normalize="relu",
        )  # fmt: skip
        ours = ms_ssim(first[index : index + 1], second[index : index + 1], 3).item()
        assert ours == pytest.approx(theirs.item(), abs=0.03)


def test_noise_lowers_it():
    clean = images(4)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    values = [ms_ssim(clean, clean + level * noise).mean().item() for level in (0.0, 0.1, 0.3, 1.0)]
    assert values == sorted(values, reverse=True)


def test_mean_over_pairs_of_a_collapsed_set():
    varied, same = images(40), images(1).expand(40, -1, -1, -1)
    two = images(2)[torch.arange(40) % 2]
    few, many = mean_pairwise_ms_ssim(varied, 20, seed=0), mean_pairwise_ms_ssim(varied, 400, seed=0)
    assert few == pytest.approx(many, abs=0.1)
    assert mean_pairwise_ms_ssim(same, 20, seed=0) == pytest.approx(1)
    # Of two kinds half of the pairs (19 of 39) are equal.
    between = ms_ssim(two[:1], two[1:2]).item()
    expected = 19 / 39 + 20 / 39 * between
    assert mean_pairwise_ms_ssim(two, 4000, seed=0) == pytest.approx(expected, abs=0.03)
    assert many < expected < 1


def test_a_pair_never_holds_one_image_twice():
    flat = torch.from_numpy(np.array([-1.0, 1.0], dtype=np.float32)).view(2, 1, 1, 1).expand(2, 1, 32, 32)
    assert mean_pairwise_ms_ssim(flat, 50, seed=0) == pytest.approx(ms_ssim(flat[:1], flat[1:]).item())


def test_bad_input():
    with pytest.raises(DataError, match="two equal"):
        ms_ssim(images(2), images(3))
    with pytest.raises(DataError, match="4 scales of images of 32 pixels; 1 to 3 fit"):
        ms_ssim(images(2), images(2), 4)
    with pytest.raises(DataError, match="1 images and 5 pairs"):
        mean_pairwise_ms_ssim(images(1), 5, seed=0)
