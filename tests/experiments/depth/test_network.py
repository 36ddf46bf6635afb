import pytest
import torch
from experiments.baselines.kinds import KINDS, parameter_count
from experiments.baselines.trial import Trial, match_parameters, trial_network
from experiments.depth.network import DepthNetwork

from geopos_diffusers.errors import ConfigError

WIDTHS = (4, 6, 8)


def trial(kind, **changes):
    return Trial(**{"data": "hands", "widths": WIDTHS, "kind": kind, "seed": 0, **changes})


def build(trial):
    return DepthNetwork(trial.widths, reference=5.0)


@pytest.mark.parametrize("kind", KINDS)
def test_depth_is_positive_and_starts_near_the_reference(kind):
    images = torch.rand(2, 3, 32, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    depth = trial_network(trial(kind), build)(images)
    assert depth.shape == (2, 1, 32, 16)
    assert depth.min() > 0
    assert 5 / 2 < depth.median() < 5 * 2


def test_kinds_differ_in_coordinate_weights_alone():
    networks = {kind: trial_network(trial(kind), build) for kind in KINDS}
    shapes = {
        kind: {name: value.shape for name, value in network.named_parameters() if "geo" not in name}
        for kind, network in networks.items()
    }
    assert shapes["conv"] == shapes["coord"] == shapes["geo"]
    filters = sum(WIDTHS) + sum(WIDTHS[:-1]) + 1  # of the encoder, the decoder and the last layer
    counts = {kind: parameter_count(network) for kind, network in networks.items()}
    assert counts["geo"] - counts["conv"] == 9 * filters
    assert counts["coord"] - counts["geo"] == 9 * filters


@pytest.mark.parametrize("kind", ["conv", "geo"])
def test_matched_networks_have_the_parameters_of_coordconv(kind):
    wanted = parameter_count(trial_network(trial("coord"), build))
    matched = match_parameters(trial(kind), build)
    assert matched.widths[:-1] == WIDTHS[:-1]
    # A channel more: a filter over the layer before with its bias and normalisation, and an input of the first decoder.
    step = 9 * WIDTHS[-2] + 3 + 9 * WIDTHS[-2] + (9 if kind == "geo" else 0)
    assert abs(parameter_count(trial_network(matched, build)) - wanted) <= step / 2


@pytest.mark.parametrize(
    ("widths", "reference", "message"),
    [((4,), 1.0, "two or more"), ((4, 0), 1.0, "widths"), ((4, 4), 0.0, "reference")],
)
def test_bad_options(widths, reference, message):
    with pytest.raises(ConfigError, match=message):
        DepthNetwork(widths, reference)


def test_sides_that_the_strides_do_not_divide():
    with pytest.raises(ConfigError, match=r"multiples of 8 for 3 widths; got \(20, 16\)"):
        DepthNetwork(WIDTHS)(torch.zeros(1, 3, 20, 16))
