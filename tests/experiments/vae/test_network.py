from functools import partial
from itertools import pairwise

import pytest
import torch
from experiments.baselines.kinds import parameter_count
from experiments.baselines.trial import match_parameters, trial_network
from experiments.vae.network import Vae, VaeTrial, fit_latents, interpolate, negative_elbo, score_elbo

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.patching.config import GeoPosConfig

WIDTHS = (4, 8, 16)


def trial(kind="conv", **changes):
    return VaeTrial(**{"data": "x", "widths": WIDTHS, "kind": kind, "seed": 0, "latent_size": 6, **changes})


def build(trial, size=32):
    return Vae(trial.widths, trial.latent_size, size)


def pictures(count=5, size=32):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("kind", ["conv", "coord", "geo"])
def test_shapes(kind, size):
    network = trial_network(trial(kind), partial(build, size=size))
    decoded, mean, log_variance = network(pictures(2, size))
    assert decoded.shape == (2, 3, size, size)
    assert mean.shape == log_variance.shape == (2, 6)
    assert network.decode_pictures(torch.randn(3, 6)).shape == (3, 3, size, size)


def test_plain_parameters_by_hand():
    encoder = sum(16 * inputs * outputs + outputs for inputs, outputs in pairwise((3, *WIDTHS)))
    decoder = sum(16 * inputs * outputs + outputs for inputs, outputs in pairwise((*reversed(WIDTHS), 3)))
    linear = 16 * 16 * 12 + 12 + 6 * 256 + 256  # 16 channels of 4x4 to 2 x 6 numbers, and 6 numbers back
    assert parameter_count(build(trial())) == encoder + decoder + linear


def test_kl_against_the_closed_form():
    """KL(N(m, s^2) || N(0, 1)) = ln(1 / s) + (s^2 + m^2) / 2 - 1 / 2."""
    mean, deviation = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.5, 3.0]])
    images = torch.zeros(2, 3, 4, 4)
    kl = negative_elbo((images, mean, 2 * deviation.log()), images, 1.0)["kl"]
    # 1 / 2 and 0 of the first image; ln 2 + 1 / 8 - 1 / 2 and -ln 3 + 13 / 2 - 1 / 2 of the second.
    first, second = 0.5, 0.693147 + 0.125 - 0.5 - 1.098612 + 6.5 - 0.5
    assert kl.item() == pytest.approx((first + second) / 2, rel=1e-5)
    normal = torch.distributions.Normal
    known = torch.distributions.kl_divergence(normal(mean, deviation), normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(kl, known)


def test_reconstruction_is_a_gaussian_likelihood_without_its_constant():
    images, decoded = pictures(2), pictures(2).roll(1, 0)
    variance, none = 0.05, torch.zeros(2, 6)
    losses = negative_elbo((decoded, none, none), images, variance)
    likelihood = torch.distributions.Normal(decoded, variance**0.5).log_prob(images).sum((1, 2, 3)).mean()
    constant = images[0].numel() / 2 * torch.log(torch.tensor(2 * torch.pi * variance))
    torch.testing.assert_close(losses["reconstruction"], -likelihood - constant, rtol=1e-4, atol=1e-2)
    assert losses["kl"] == 0


def test_parts_add_up_and_do_not_depend_on_the_batches():
    network, images = trial_network(trial(), build).eval(), pictures(230)
    whole = score_elbo(network, images, 0.1, seed=0)
    assert whole["loss"] == pytest.approx(whole["reconstruction"] + whole["kl"], rel=1e-6)
    noise = torch.randn(230, 6, generator=torch.Generator().manual_seed(0))
    at_once = negative_elbo(network(images, noise), images, 0.1)
    assert whole["loss"] == pytest.approx(at_once["loss"].item(), rel=1e-5)
    assert whole != score_elbo(network, images, 0.1, seed=1)


@pytest.mark.parametrize("kind", ["conv", "geo"])
def test_scoring_leaves_the_global_generator_as_it_was(kind):
    network = trial_network(trial(kind), build).eval()
    before = torch.get_rng_state()
    first, second = (score_elbo(network, pictures(), 0.1, seed=0) for _ in range(2))
    assert first == second
    interpolate(network, *pictures(2), 4)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_is_the_global_generators_in_training_and_none_in_eval_mode():
    network, images = trial_network(trial(), build), pictures(2)
    torch.manual_seed(1)
    first = network(images)[0]
    torch.manual_seed(1)
    noise = torch.randn(2, 6)
    assert torch.equal(first, network(images, noise)[0])
    assert not torch.equal(first, network(images)[0])
    network.eval()
    means = network.encode(images)[0]
    torch.testing.assert_close(network(images)[0], network.decoder(means))


def test_kinds_differ_only_in_coordinate_weights():
    networks = {kind: trial_network(trial(kind), build) for kind in ("conv", "coord", "geo")}
    plain = dict(networks["conv"].named_parameters())
    for kind in ("coord", "geo"):
        others = dict(networks[kind].named_parameters())
        assert {name for name in others if name not in plain} == {
            f"{part}.{number}.geo_weight" for part, numbers in (("encoder", (0, 2, 4)), ("decoder", (3, 5, 7)))
            for number in numbers
        }  # fmt: skip
        for name, value in plain.items():  # equal draws; strided convolutions count the coordinates in their range
            ratio = others[name] / value
            torch.testing.assert_close(ratio, ratio.flatten()[0].expand_as(ratio))
            assert (ratio.flatten()[0].item() == 1) == (not name.startswith(("encoder.0", "encoder.2", "encoder.4")))


@pytest.mark.parametrize("kind", ["conv", "geo"])
def test_matched_networks_have_nearly_the_parameters_of_coordconv(kind):
    wanted = parameter_count(build(trial(latent_size=32)), "coord")
    matched = match_parameters(trial(kind, latent_size=32), build)
    step = 16 * 3 * 32 + 16 * 8 * 2 + 16 + 1 + 16  # of one more channel of the last stage
    assert matched.widths[:2] == WIDTHS[:2]
    assert abs(parameter_count(trial_network(matched, build)) - wanted) <= step / 2 + 16


def test_gradients_reach_every_weight():
    network = trial_network(trial("geo", geometry=GeoPosConfig(shift_range=0.0)), build)
    negative_elbo(network(pictures()), pictures(), 0.1)["loss"].backward()
    assert all(value.grad.abs().sum() > 0 for value in network.parameters())


def test_fitted_latents_have_the_moments_of_drawn_ones():
    network, images = trial_network(trial(), build).eval(), pictures(40)
    center, factor = fit_latents(network, images)
    with torch.no_grad():
        mean, log_variance = network.encode(images)
        noise = torch.randn(4000, 40, 6, generator=torch.Generator().manual_seed(0))
        drawn = (mean + (log_variance / 2).exp() * noise).flatten(0, 1)
    torch.testing.assert_close(center, drawn.mean(0), rtol=0, atol=0.02)
    torch.testing.assert_close(factor @ factor.T, drawn.T.cov(), rtol=0, atol=0.02)


def test_interpolation_runs_from_one_reconstruction_to_the_other():
    network, images = trial_network(trial("geo"), build).eval(), pictures(2)
    way = interpolate(network, images[0], images[1], 5)
    torch.testing.assert_close(way[[0, -1]], network(images)[0].detach().clamp(-1, 1))


@pytest.mark.parametrize(
    ("widths", "latent_size", "size"), [((), 4, 32), ((4, 0), 4, 32), ((4,) * 6, 4, 32), ((4,), 0, 32), ((4,), 4, 48)]
)
def test_bad_arguments(widths, latent_size, size):
    with pytest.raises(ConfigError, match="must be"):
        Vae(widths, latent_size, size)


def test_names_tell_latent_sizes_apart():
    assert trial().name({}) != trial(latent_size=7).name({})
