"""Networks that are built of the public layers: all that is done to patched models can be done to them."""

import copy
import pickle

import pytest
import torch
from torch import nn
from trained_models import draw_geometry

from geopos_diffusers import (
    GeoConv1d,
    GeoConv2d,
    GeoConv3d,
    GeoConvConfig,
    GeoConvTranspose1d,
    GeoConvTranspose2d,
    GeoConvTranspose3d,
    GeoPosConfig,
    apply_geoconv,
    delete_geoconv_adapters,
    disable_geoconv,
    geoconv_parameters,
    geoconv_status,
    get_active_geoconv_adapters,
    load_geoconv_weights,
    remove_geoconv,
    save_geoconv_weights,
    set_geoconv_adapters,
    set_geoconv_scale,
)
from geopos_diffusers.errors import AdapterError, SurgeryError

LAYERS = {
    1: (nn.Conv1d, GeoConv1d, nn.ConvTranspose1d, GeoConvTranspose1d),
    2: (nn.Conv2d, GeoConv2d, nn.ConvTranspose2d, GeoConvTranspose2d),
    3: (nn.Conv3d, GeoConv3d, nn.ConvTranspose3d, GeoConvTranspose3d),
}


def network(axes: int = 2, config: GeoPosConfig | None = None, seed: int = 0) -> nn.Sequential:
    """A GeoConv, a transposed one and no plain convolution."""
    _, conv, _, transposed = LAYERS[axes]
    torch.manual_seed(seed)
    return nn.Sequential(conv(2, 3, 3, config=config), nn.SiLU(), transposed(3, 2, 3, config=config)).eval()


def plain_network(axes: int = 2) -> nn.Sequential:
    conv, _, transposed, _ = LAYERS[axes]
    return nn.Sequential(conv(2, 3, 3), nn.SiLU(), transposed(3, 2, 3)).eval()


def image(axes: int = 2) -> torch.Tensor:
    return torch.randn(1, 2, *[6] * axes, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("axes", [1, 2, 3])
class TestNetworkOfGeoConvs:
    def test_status_and_parameters(self, axes):
        model = network(axes)
        status = geoconv_status(model)
        assert (status.patched, status.built) == ([], ["0", "2"])
        parameters = geoconv_parameters(model)
        assert {name: weight is model[int(name[0])].geo_weight for name, weight in parameters.items()} == {
            "0.geo_weight": True,
            "2.geo_weight": True,
        }
        assert status.geometry_parameters == sum(weight.numel() for weight in parameters.values())
        assert status.base_parameters == sum(parameter.numel() for parameter in plain_network(axes).parameters())
        assert status.config.geopos() == model[0].geo_config

    def test_scale_and_disabling(self, axes):
        model, plain, x = network(axes), plain_network(axes), image(axes)
        output = model(x)
        with disable_geoconv(model):
            plain.load_state_dict(model.state_dict())
            assert torch.equal(model(x), plain(x))
        assert torch.equal(model(x), output)
        assert set_geoconv_scale(model, 0.5, layers=["2"]) == ["2"]
        assert geoconv_status(model).scales == {"0": 1.0, "2": 0.5}

    def test_saving_and_loading(self, axes, tmp_path):
        model, other, x = network(axes), network(axes, seed=1), image(axes)
        save_geoconv_weights(model, tmp_path)
        load_geoconv_weights(other, tmp_path)
        other.load_state_dict({name: w for name, w in model.state_dict().items() if "geo" not in name}, strict=False)
        assert torch.equal(other(x), model(x))

    def test_copies_and_pickles(self, axes):
        model, x = network(axes), image(axes)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin(x), model(x))
            assert geoconv_status(twin) == geoconv_status(model)

    def test_patching_leaves_its_layers_to_it(self, axes):
        model = network(axes)
        with pytest.raises(SurgeryError, match="built as a GeoConv"):
            apply_geoconv(model)
        assert remove_geoconv(model) == []
        assert len(geoconv_parameters(model)) == 2


class TestAdapters:
    def test_named_ones_are_switched_and_mixed(self, tmp_path):
        model, other = network(), network(seed=1)
        save_geoconv_weights(other, tmp_path)
        own = model[0].geo_weight.clone()
        load_geoconv_weights(model, tmp_path, "other")
        set_geoconv_adapters(model, ["default", "other"], [0.5, 2.0])
        assert get_active_geoconv_adapters(model) == {"default": 0.5, "other": 2.0}
        torch.testing.assert_close(model[0].geo_weight, 0.5 * own + 2 * other[0].geo_weight)
        delete_geoconv_adapters(model, "other")
        with pytest.raises(AdapterError, match="own weights"):
            delete_geoconv_adapters(model, "default")

    def test_layers_that_differ_make_no_adapter(self, tmp_path):
        model = nn.Sequential(GeoConv2d(2, 3, 3), GeoConv2d(3, 2, 3, basis="multilinear"))
        assert geoconv_status(model).config is None
        with pytest.raises(AdapterError, match="differ"):
            save_geoconv_weights(model, tmp_path)

    def test_weights_of_another_channel_are_refused(self, tmp_path):
        save_geoconv_weights(network(config=GeoPosConfig(encoding="sum")), tmp_path)
        model = network()
        before = model[0].geo_weight.clone()
        with pytest.raises(AdapterError, match="encoding='product', not encoding='sum'"):
            load_geoconv_weights(model, tmp_path)
        assert torch.equal(model[0].geo_weight, before)

    def test_weights_for_fewer_layers_are_refused(self, tmp_path):
        save_geoconv_weights(nn.Sequential(GeoConv2d(2, 3, 3)), tmp_path)
        with pytest.raises(AdapterError, match="layers without weights: 2"):
            load_geoconv_weights(network(), tmp_path)


class TestBothKinds:
    """A patched network with a GeoConv of its own: the adapter is of what was patched, the rest is the network's."""

    def network(self) -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(GeoConv2d(2, 3, 3), nn.Conv2d(3, 2, 3)).eval()

    def test_patching_and_removing(self):
        model, x = self.network(), image()
        output = model(x)
        status = apply_geoconv(model)
        assert (status.patched, status.built, status.skipped) == (["1"], ["0"], {})
        draw_geometry(model)
        assert [*geoconv_parameters(model)] == ["1.geo_weight"]
        with disable_geoconv(model):
            assert torch.equal(model(x), output)
            assert "0.geo_weight" in model.state_dict()
        assert not torch.equal(model(x), output)
        assert remove_geoconv(model) == ["1"]
        assert torch.equal(model(x), output)

    def test_the_adapter(self, tmp_path):
        model, other = self.network(), self.network()
        apply_geoconv(model)
        draw_geometry(model)
        save_geoconv_weights(model, tmp_path)
        load_geoconv_weights(other, tmp_path)
        assert torch.equal(other(image()), model(image()))


def test_the_two_kinds_of_layers_print_different_names():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ConvTranspose3d(2, 3, 3))
    apply_geoconv(model, GeoConvConfig(basis="taps"))
    names = [type(layer).__name__ for layer in model]
    assert names == ["PatchedConv2d", "PatchedConvTranspose3d"]
    assert [repr(layer).partition("(")[0] for layer in (*model, GeoConv2d(1, 1, 3))] == [*names, "GeoConv2d"]
