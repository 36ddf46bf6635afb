"""The denoisers that learn from random weights: what they know of places, their errors, and sampling."""

import pytest
import torch
from experiments.baselines.kinds import KINDS, set_kind
from experiments.diffusion.network import NETWORKS, Denoiser, held_out_error, noise_error

from geopos_diffusers.errors import ConfigError

WIDTHS = {"unet": (8, 16), "transformer": (32, 32), "transformer-without-positions": (32, 32)}
LATENTS = torch.randn(4, 8, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    return Denoiser(request.param, WIDTHS[request.param])


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_train_and_draw(network, kind):
    """All convolutions with more than one tap get coordinates; the only one of a transformer is its patch embedding."""
    plain = sum(parameter.numel() for parameter in network.parameters())
    set_kind(network, kind, seed=1)
    added = sum(parameter.numel() for parameter in network.parameters()) - plain
    taps = {"conv": 0, "coord": 2 * 2 * 2, "geo": 2 * 2, "geo-multilinear": 4}
    if not hasattr(network.model, "down_blocks"):
        assert added == 32 * taps[kind]
    assert (added > 0) == (kind != "conv")
    loss = noise_error(network.train()(LATENTS), LATENTS)["loss"]
    loss.backward()
    assert all(parameter.grad is not None for name, parameter in network.named_parameters() if "geo_" in name)
    drawn = network.eval().sample(torch.randn(3, 8, 16, 16), steps=2)
    assert drawn.shape == (3, 8, 16, 16)
    assert drawn.isfinite().all()


def permuted(latents):
    """The 2x2 patches of latents [B, C, 16, 16] in another order."""
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    patches = torch.nn.functional.unfold(latents, 2, stride=2)[..., order]
    return torch.nn.functional.fold(patches, (16, 16), 2, stride=2)


@pytest.mark.parametrize(
    ("name", "kind", "knows"),
    [
        ("transformer-without-positions", "conv", False),
        ("transformer-without-positions", "geo", True),
        ("transformer-without-positions", "geo-multilinear", True),
        ("transformer-without-positions", "coord", True),
        ("transformer", "conv", True),
    ],
)
@torch.no_grad()
def test_without_positions_only_coordinates_tell_where_a_patch_lies(name, kind, knows):
    network = set_kind(Denoiser(name, WIDTHS[name]), kind, seed=1).eval()
    timesteps = torch.full((4,), 500)
    moved = permuted(network.predict(LATENTS, timesteps))
    difference = (network.predict(permuted(LATENTS), timesteps) - moved).abs().max()
    assert (difference > 1e-3) == knows


def test_held_out_errors_are_of_fixed_noise(network):
    network.eval()
    first = held_out_error(network, LATENTS, seed=3)
    assert held_out_error(network, LATENTS, seed=3) == first
    assert held_out_error(network, LATENTS, seed=4) != first
    assert 0.5 < first < 3


def test_training_draws_from_the_global_generator(network):
    torch.manual_seed(5)
    first = network(LATENTS)[1]
    torch.manual_seed(5)
    assert torch.equal(network(LATENTS)[1], first)
    assert not torch.equal(network(LATENTS)[1], first)


@pytest.mark.parametrize(
    ("name", "widths", "message"),
    [
        ("mlp", (8,), "network must be one of"),
        ("unet", (), "multiples of 8"),
        ("unet", (8, 12), "multiples of 8"),
        ("transformer", (32, 64), "equal multiples of 32"),
        ("transformer", (), "equal multiples of 32"),
    ],
)
def test_bad_networks(name, widths, message):
    with pytest.raises(ConfigError, match=message):
        Denoiser(name, widths)
