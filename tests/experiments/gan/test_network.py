import math

import pytest
import torch
from experiments.baselines.kinds import parameter_count
from experiments.gan.loss import discriminator_loss, generator_loss
from experiments.gan.network import VARIANTS, build_dcgan, stage_widths

from geopos_diffusers import GeoConvConfig
from geopos_diffusers.errors import ConfigError


def build(variant: str, size: int = 32, seed: int = 0, **config):
    return build_dcgan(variant, size, 4, 8, GeoConvConfig(basis="taps", **config), seed)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes_and_range(variant, size):
    generator, discriminator = build(variant, size)
    images = generator(torch.randn(3, 8))
    assert images.shape == (3, 3, size, size)
    assert images.abs().max() <= 1
    assert discriminator(images).shape == (3, 1)


def test_plain_parameters_by_hand():
    generator, discriminator = build("conv")
    # Linear 8 -> 16 * 16, transposed 16 -> 8 -> 4 -> 3 of 4x4, batch normalisation of 16, 8 and 4, bias of the last.
    assert parameter_count(generator) == 8 * 256 + 16 * (16 * 8 + 8 * 4 + 4 * 3) + 2 * (16 + 8 + 4) + 3
    assert parameter_count(discriminator) == 16 * (3 * 4 + 4 * 8 + 8 * 16) + 4 + 2 * (8 + 16) + 256 + 1
    assert stage_widths(64, 4) == (4, 8, 16, 32)


def test_coordinates_cost_one_filter_a_channel():
    counts = {variant: [parameter_count(network) for network in build(variant)] for variant in VARIANTS}
    # Output channels of the convolutions, times 16 weights: generator 8 + 4 + 3, discriminator 4 + 8 + 16.
    for number, outputs in enumerate((15, 28)):
        assert counts["geo"][number] - counts["conv"][number] == 16 * outputs
        assert counts["coord"][number] - counts["conv"][number] == 2 * 16 * outputs
    assert counts["geo-no-shift"] == counts["geo"]


@pytest.mark.parametrize("variant", ["conv-matched", "geo-matched"])
def test_matched_variants_have_the_parameters_of_coord(variant):
    networks, wanted = (build_dcgan(name, 32, 16, 64) for name in (variant, "coord"))
    for network, target in zip(networks, wanted, strict=True):
        assert parameter_count(network) == pytest.approx(parameter_count(target), rel=0.004)


@pytest.mark.parametrize("variant", ["coord", "geo", "geo-no-shift"])
def test_variants_share_all_other_weights(variant):
    for plain, other in zip(build("conv", seed=3), build(variant, seed=3), strict=True):
        others = dict(other.named_parameters())
        assert all(torch.equal(others.pop(name), value) for name, value in plain.named_parameters())
        assert all(name.endswith("geo_weight") for name in others)


def test_generator_and_discriminator_do_not_share_draws():
    generator, discriminator = build("conv")
    first, second = generator[0].weight.flatten()[:100], discriminator[0].weight.flatten()[:100]
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("variant", "moves"), [("conv", False), ("coord", False), ("geo", True), ("geo-no-shift", False)]
)
def test_only_geo_shifts_and_only_while_training(variant, moves):
    generator = build(variant)[0]
    latents = torch.randn(4, 8)
    assert torch.equal(generator(latents), generator(latents)) != moves
    generator.eval()
    assert torch.equal(generator(latents), generator(latents))


def test_losses_by_hand():
    # Logits of 0 say "half": each of the two terms of the discriminator is ln 2.
    zero = torch.zeros(2, 1)
    assert discriminator_loss(zero, zero).item() == pytest.approx(2 * math.log(2))
    assert generator_loss(zero).item() == pytest.approx(math.log(2))
    # A discriminator that is right has no loss; the generator then has the logit as its loss, and its full gradient.
    sure = torch.full((2, 1), 20.0)
    assert discriminator_loss(sure, -sure).item() == pytest.approx(0, abs=1e-6)
    assert generator_loss(-sure).item() == pytest.approx(20)


@pytest.mark.parametrize("arguments", [("cord", 32, 4, 8), ("geo", 48, 4, 8), ("geo", 32, 0, 8), ("geo", 32, 4, 0)])
def test_bad_arguments(arguments):
    with pytest.raises(ConfigError, match="must be"):
        build_dcgan(*arguments)
