import pytest
import torch
from experiments.baselines.kinds import KINDS, parameter_count
from experiments.baselines.position_network import HEADS, PositionNetwork, PositionTrial
from experiments.baselines.trial import match_last_width, match_parameters, trial_network

from geopos_diffusers import GeoPosConfig
from geopos_diffusers.errors import ConfigError


def trial(kind, **changes):
    return PositionTrial(**{"data": "x", "head": "average", "widths": (8, 16, 32), "kind": kind, "seed": 0, **changes})


def build(trial):
    return PositionNetwork(trial.widths, 9, trial.head, size=32)


@pytest.mark.parametrize("head", HEADS)
def test_shapes(head):
    assert PositionNetwork((4, 8), 3, head, size=16)(torch.rand(2, 1, 16, 16)).shape == (2, 3)


def test_batch_normalisation_before_each_activation():
    torch.manual_seed(0)
    network = PositionNetwork((4, 8), 3, "average", size=16, batch_norm=True)
    kinds = [type(layer).__name__ for layer in network.convolutions]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 2
    hidden = network.convolutions[:-1](torch.rand(8, 1, 16, 16))
    torch.testing.assert_close(hidden.mean((0, 2, 3)), torch.zeros(8), rtol=0, atol=1e-5)


@pytest.mark.parametrize("head", ["average", "maximum"])
def test_plain_convolution_is_blind_to_moves_by_whole_strides_away_from_the_border(head):
    torch.manual_seed(0)
    network = PositionNetwork((4, 8, 8), 3, head, size=56).eval()
    images = torch.zeros(2, 1, 56, 56)
    patch = torch.rand(10, 10)
    images[0, 0, 16:26, 16:26] = images[1, 0, 24:34, 32:42] = patch
    first, second = network(images)
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize(
    ("widths", "head", "size", "message"),
    [((4,), "sum", 16, "average, maximum, flatten"), ((), "average", 16, "widths"), ((4, 4), "average", 18, "4")],
)
def test_bad_options(widths, head, size, message):
    with pytest.raises(ConfigError, match=message):
        PositionNetwork(widths, 2, head, size)


def test_coordinate_channels_cost_their_parameters():
    counts = {kind: parameter_count(trial_network(trial(kind), build)) for kind in KINDS}
    filters = 8 + 16 + 32
    assert counts["geo"] - counts["conv"] == 9 * filters
    assert counts["coord"] - counts["geo"] == (2 - 1) * 9 * filters
    assert counts["geo-multilinear"] - counts["conv"] == 4 * filters


@pytest.mark.parametrize("kind", ["conv", "geo", "geo-multilinear"])
@pytest.mark.parametrize("head", HEADS)
def test_matched_networks_have_the_parameters_of_coordconv(kind, head):
    wanted = parameter_count(trial_network(trial("coord", head=head), build))
    matched = match_parameters(trial(kind, head=head), build)
    assert matched.widths[:-1] == (8, 16)
    step = 9 * 16 + 1 + 9 * (16 if head == "flatten" else 1) + {"conv": 0, "geo": 9, "geo-multilinear": 4}[kind]
    assert abs(parameter_count(trial_network(matched, build)) - wanted) <= step / 2


def test_match_last_width():
    assert match_last_width((3, 10), 140, lambda widths: 10 * widths[-1] + 4) == (3, 14)
    with pytest.raises(ConfigError, match="up to 20 gives 500"):
        match_last_width((3, 10), 500, lambda widths: 10 * widths[-1])


def test_names_tell_trials_and_settings_apart():
    trials = [
        trial("conv"),
        trial("geo"),
        trial("geo", seed=1),
        trial("geo", geometry=GeoPosConfig(border="extrapolate")),
    ]
    names = {item.name(settings) for item in trials for settings in ({"steps": 1}, {"steps": 2})}
    assert len(names) == 8
    assert trial("conv", geometry=GeoPosConfig(shift_range=1.0)).name({}) == trial("conv").name({})


@pytest.mark.parametrize(
    ("kind", "geometry", "name"),
    [
        ("conv", {}, "convolution"),
        ("conv", {"shift_range": 0.0}, "convolution"),
        ("coord", {}, "CoordConv"),
        ("geo", {}, "GeoConv"),
        ("geo", {"shift_range": 0.0}, "GeoConv, no shift"),
        ("geo", {"encoding": "squares", "shift_range": 0.5}, "GeoConv, squares, shift 0.5"),
        ("geo", {"border": "extrapolate"}, "GeoConv, border extrapolate"),
        ("geo-multilinear", {}, "GeoConv, multilinear"),
        ("geo-multilinear", {"shift_range": 0.0}, "GeoConv, multilinear, no shift"),
    ],
)
def test_variants_have_names(kind, geometry, name):
    plain = trial(kind, geometry=GeoPosConfig(**geometry))
    assert plain.variant == plain.record()["variant"] == name
    if kind != "coord":
        assert match_parameters(plain, build).record()["variant"] == f"{name}, matched"


def test_records_name_the_basis():
    bases = {kind: trial(kind).record().get("basis") for kind in KINDS}
    assert bases == {"conv": None, "coord": None, "geo": "taps", "geo-multilinear": "multilinear"}
