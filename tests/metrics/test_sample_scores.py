import numpy as np
import pytest
import torch

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.sample_scores import (
    ImageScores,
    SampleScores,
    half_scores,
    mobilenet_features,
    pixel_features,
)

KINDS = 8
NEIGHBOURHOODS = ("precision", "recall", "density", "coverage")


def pictures(kinds: int, count: int, seed: int = 0) -> torch.Tensor:
    """Noisy images with a bright square at one of `kinds` places, in turn."""
    images = torch.full((count, 3, 32, 32), -0.8)
    for index in range(count):
        row, column = divmod(index % kinds, 4)
        images[index, :, 16 * row : 16 * row + 8, 8 * column : 8 * column + 8] = 0.8
    return images + 0.05 * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def scores():
    return SampleScores(pixel_features(pictures(KINDS, 400)), KINDS, seed=0)


def test_pixel_features_are_means_of_blocks():
    images = torch.arange(2 * 3 * 32 * 32).view(2, 3, 32, 32).float()
    features = pixel_features(images)
    assert features.shape == (2, 768)
    # The first block of 2x2 pixels: 0, 1, 32, 33.
    assert features[0, 0] == pytest.approx(16.5)


@pytest.mark.parametrize("kept", [1, 2, 4, 8])
def test_collapse_shows_in_every_score(scores, kept):
    values = scores(pixel_features(pictures(kept, 300, seed=1)))
    assert values["covered"] == pytest.approx(kept / KINDS)
    assert values["coverage"] == pytest.approx(kept / KINDS, abs=0.06)
    assert values["recall"] <= kept / KINDS
    assert values["precision"] > 0.5
    # Squares at eight places about their mean span seven directions.
    assert values["vendi"] == pytest.approx({1: 1, 2: 2, 4: 4, 8: 7}[kept], rel=0.35)


def test_halves_of_real_images_reach_the_top():
    values = half_scores(pixel_features(pictures(KINDS, 400)), KINDS, seed=0)
    assert values["covered"] == 1
    assert min(values["precision"], values["recall"]) > 0.6
    assert values["coverage"] > 0.9


def test_samples_that_are_not_finite(scores):
    with pytest.raises(DataError, match="diverged"):
        scores(np.full((20, 768), np.nan))


def test_mobilenet_tells_pictures_apart(mobilenet):
    first, second = (mobilenet_features(mobilenet, pictures(2, 8), batch_size) for batch_size in (3, 8))
    assert first.shape == (8, 1280)
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4)
    between = np.linalg.norm(first[0] - first[1])
    assert np.linalg.norm(first[0] - first[2]) < 0.75 * between


def test_diversity_falls_with_the_kinds_of_pictures(mobilenet):
    scores = ImageScores(pictures(KINDS, 64), 100, 0, mobilenet)
    many, few = scores(pictures(KINDS, 64, seed=1)), scores(pictures(2, 64, seed=1))
    assert many.keys() == few.keys() == {"ms_ssim", "vendi", "MobileNetV2-96_vendi", "MobileNetV2-96_kid"}
    assert few["vendi"] < 0.5 * many["vendi"]
    assert few["MobileNetV2-96_vendi"] < many["MobileNetV2-96_vendi"]
    assert few["ms_ssim"] > many["ms_ssim"]
    assert few["MobileNetV2-96_kid"] > many["MobileNetV2-96_kid"]


def test_diversity_without_a_network():
    images = pictures(KINDS, 400)
    scores = ImageScores(images, 100, seed=0)
    values = scores(pictures(4, 300, seed=1))
    assert values.keys() == {"ms_ssim", "vendi"}
    # The same score as beside bins.
    assert (
        values["vendi"] == SampleScores(pixel_features(images), KINDS, 0)(pixel_features(pictures(4, 300, 1)))["vendi"]
    )
    with pytest.raises(DataError, match="diverged"):
        scores(torch.full((20, 3, 32, 32), torch.inf))


def test_scores_with_bins_and_with_and_without_the_network(mobilenet):
    images = pictures(KINDS, 80)
    scores = ImageScores(images, 100, 0, mobilenet, bins=4)
    half, quick = scores(images[:40]), scores(images[:40], mobilenet=False)
    assert quick.keys() == {"ms_ssim", "vendi", "covered", "different", "jensen_shannon", *NEIGHBOURHOODS}
    assert half.keys() == {
        *quick,
        *(f"MobileNetV2-96_{name}" for name in quick if name != "ms_ssim"),
        "MobileNetV2-96_kid",
    }
    assert quick == {name: half[name] for name in quick}
    assert quick["covered"] == 1
    real = scores.of_halves(2)
    assert real.keys() == {name for name in half if name not in ("ms_ssim", "MobileNetV2-96_kid")}
    assert real["covered"] == half_scores(pixel_features(images), 2, 0)["covered"]
