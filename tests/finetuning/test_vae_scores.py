"""Scores by region, the perceptual loss and the discriminator, on planted errors."""

import math

import numpy as np
import pytest
import torch

from geopos_diffusers.errors import ConfigError, MissingDependencyError
from geopos_diffusers.finetuning.patch_discriminator import (
    PatchDiscriminator,
    check_size,
    discriminator_loss,
    generator_loss,
)
from geopos_diffusers.finetuning.vae_scores import HeldOutImages, logged, region_masks, region_mean, ring_width
from geopos_diffusers.optional_packages import is_installed


@pytest.fixture(scope="module")
def perceptual():
    from geopos_diffusers.finetuning.perceptual_loss import PerceptualLoss

    try:
        return PerceptualLoss("mobilenet")
    except MissingDependencyError as error:
        pytest.skip(str(error))


def pixels(count: int, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8


class TestRegions:
    @pytest.mark.parametrize(
        ("ring", "size", "width"), [(16, 256, 16), (16, 64, 4), (16, 512, 32), (16, 8, 1), (5, 64, 1)]
    )
    def test_the_ring_is_scaled_with_the_image(self, ring, size, width):
        assert ring_width(ring, size) == width

    def test_ring_and_centre_part_the_image(self):
        masks = region_masks(10, 2)
        assert {name: int(mask.sum()) for name, mask in masks.items()} == {"image": 100, "ring": 64, "centre": 36}
        assert torch.equal(masks["ring"] + masks["centre"], masks["image"])
        assert masks["centre"][2:8, 2:8].all()

    def test_means_of_coarser_maps_weigh_places_by_their_share(self):
        values = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
        mask = torch.zeros(8, 8)
        mask[:4, :4], mask[4:, :2] = 1, 1  # all of the first place and half of the third
        assert region_mean(values, mask).item() == pytest.approx(1 / 1.5)
        assert region_mean(values, torch.ones(8, 8)).item() == pytest.approx(0.25)

    def test_an_error_along_the_border_is_found_there(self):
        images = HeldOutImages(pixels(6), ring=16, perceptual=None, kid=False)
        ring = region_masks(32, 2)["ring"]
        images.remember_untouched(lambda batch: batch + 0.2 * ring)
        scores, _ = images.compare(lambda batch: batch + 0.02 * ring + 0.02)
        psnr, l1 = scores["psnr"], scores["l1"]
        assert scores["ring_pixels"] == 2
        assert psnr["ring"]["untouched"] == pytest.approx(-20 * math.log10(0.1), abs=1e-3)
        assert psnr["centre"]["untouched"] == 100  # equal pixels
        assert psnr["ring"]["difference"]["value"] == pytest.approx(20 * math.log10(5), abs=1e-3)
        assert l1["ring"]["difference"]["value"] == pytest.approx(-0.08, abs=1e-6)
        assert l1["centre"]["difference"]["low"] == pytest.approx(0.01, abs=1e-6)
        assert l1["ring_minus_centre"]["value"] == pytest.approx(-0.09, abs=1e-6)
        assert logged(scores)["l1_ring_difference"] == l1["ring"]["difference"]["value"]

    def test_intervals_are_of_paired_differences(self):
        images = HeldOutImages(pixels(8), ring=16, perceptual=None, kid=False)
        size = torch.linspace(0.05, 0.4, 8)[:, None, None, None]  # of each image's own error
        images.remember_untouched(lambda batch: batch + size)
        scores, _ = images.compare(lambda batch: batch + size / 2)
        difference = scores["psnr"]["image"]["difference"]
        gain = 20 * math.log10(2)
        assert [difference[end] for end in ("value", "low", "high")] == pytest.approx([gain] * 3, abs=0.15)

    def test_kid_and_lpips_of_the_untouched_are_those_of_the_trained_before_training(self, perceptual):
        images = HeldOutImages(pixels(5), ring=16, perceptual=perceptual.maps, kid=True)
        images.remember_untouched(lambda batch: batch * 0.5)
        scores, reconstructed = images.compare(lambda batch: batch * 0.5)
        assert scores["kid"]["untouched"] == scores["kid"]["trained"]
        assert scores["lpips"]["ring"]["difference"] == {"value": 0, "low": 0, "high": 0}
        assert scores["lpips_name"] == "LPIPS-MobileNetV2 (uniform weights)"
        assert scores["lpips"]["image"]["trained"] > 0
        strips, captions = images.strips(reconstructed, 2)
        assert [strip.size for strip in strips] == [(5 * 32, 32)] * 2
        assert len(captions) == 2


class TestPerceptualLoss:
    def test_it_is_the_distance_of_the_scores(self, perceptual):
        from geopos_diffusers.metrics.lpips import mobilenet_distances

        pair = pixels(2, 64)
        expected = mobilenet_distances(perceptual.maps.network, pair)[0]
        assert perceptual(pair[:1], pair[1:]).item() == pytest.approx(expected.item(), rel=1e-4)
        assert perceptual(pair, pair).item() == 0

    def test_gradients_lead_to_the_image(self, perceptual):
        target = pixels(1, 64)
        image = (target + 0.3 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
        optimizer, values = torch.optim.Adam([image], 0.02), []
        for _ in range(6):
            value = perceptual(image, target)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            values.append(value.item())
        assert values[-1] < 0.8 * values[0]
        assert all(parameter.grad is None for parameter in perceptual.parameters())

    @pytest.mark.skipif(is_installed("torchvision"), reason="then they are downloaded")
    @pytest.mark.parametrize(("network", "title"), [("alex", "AlexNet"), ("vgg", "VGG-16")])
    def test_learnt_networks_are_named_where_they_cannot_be_had(self, network, title):
        from geopos_diffusers.finetuning.perceptual_loss import PerceptualLoss

        with pytest.raises(MissingDependencyError, match=f"LPIPS with {title} needs torchmetrics, torchvision"):
            PerceptualLoss(network)


class TestDiscriminator:
    def test_hinge_losses(self):
        real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])
        assert discriminator_loss(real, fake).item() == pytest.approx((0.25 + 0.5) / 2)
        assert generator_loss(fake).item() == pytest.approx(1.5)

    @pytest.mark.parametrize(("layers", "size", "seen"), [(1, 32, 16), (2, 64, 34), (3, 128, 70)])
    def test_a_value_sees_a_patch(self, layers, size, seen):
        network = PatchDiscriminator(8, layers)
        # Normalisation over all places would let every value see the whole image.
        for index, module in enumerate(network.layers):
            if isinstance(module, torch.nn.GroupNorm):
                network.layers[index] = torch.nn.Identity()
        image = torch.rand(1, 3, size, size, requires_grad=True)
        values = network(image)
        middle = values.shape[-1] // 2
        values[0, 0, middle, middle].backward()
        rows = image.grad.abs().sum((0, 1, 3)).nonzero().flatten()
        assert int(rows.max() - rows.min()) + 1 == seen

    def test_the_smallest_image(self):
        check_size(24, 3)
        assert PatchDiscriminator(8, 3)(torch.zeros(1, 3, 24, 24)).shape == (1, 1, 1, 1)
        with pytest.raises(ConfigError, match="needs images of 24 pixels a side; this run's have 23"):
            check_size(23, 3)


def test_values_are_of_each_image():
    images = HeldOutImages(pixels(3), ring=16, perceptual=None, kid=False)
    images.remember_untouched(lambda batch: batch)
    factor = torch.tensor([0.0, 0.1, 0.2])[:, None, None, None]
    images.compare(lambda batch: batch + factor)
    np.testing.assert_allclose(images.trained["l1_image"], [0, 0.05, 0.1], atol=1e-6)
