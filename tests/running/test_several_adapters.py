"""Several adapters on one base, and models that diffusers builds from patched ones."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    ControlNetModel,
    MotionAdapter,
    UNet2DConditionModel,
    UNetMotionModel,
)
from safetensors.torch import load_file
from tiny_models import tiny_stable_diffusion
from torch import nn
from trained_models import denoise, draw_geometry, trained_stable_diffusion

from geopos_diffusers import (
    GeoConvConfig,
    apply_geoconv,
    delete_geoconv_adapters,
    disable_geoconv,
    geoconv_parameters,
    geoconv_status,
    get_active_geoconv_adapters,
    list_geoconv_adapters,
    load_geoconv_weights,
    remove_geoconv,
    save_geoconv_weights,
    set_geoconv_adapters,
)
from geopos_diffusers.errors import AdapterError, SurgeryError


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Two adapters of one config, one of another encoding and one of the other basis."""
    folder = tmp_path_factory.mktemp("adapters")
    configs = {name: GeoConvConfig() for name in ("a", "b")}
    configs |= {"sum": GeoConvConfig(encoding="sum"), "taps": GeoConvConfig(basis="taps")}
    for seed, (name, config) in enumerate(configs.items()):
        save_geoconv_weights(trained_stable_diffusion(config, seed=seed), folder / name)
    return {name: folder / name for name in configs}


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "geoconv_weights.safetensors")


def has_weights(pipe, expected: dict[str, torch.Tensor]) -> bool:
    present = geoconv_parameters(pipe)
    return present.keys() == expected.keys() and all(torch.equal(w, expected[name]) for name, w in present.items())


def controlnet(unet: UNet2DConditionModel) -> nn.Module:
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8))


def motion_unet(unet: UNet2DConditionModel) -> nn.Module:
    return UNetMotionModel.from_unet2d(unet, motion_adapter())


def motion_adapter() -> MotionAdapter:
    sizes = {"motion_layers_per_block": 1, "motion_norm_num_groups": 4, "motion_num_attention_heads": 2}
    return MotionAdapter(block_out_channels=(8, 16), **sizes)


class TestModelsBuiltFromPatchedOnes:
    @pytest.mark.parametrize("build", [controlnet, motion_unet])
    def test_they_get_the_stock_weights(self, build):
        pipe = trained_stable_diffusion()
        output = denoise(pipe.unet)
        with disable_geoconv(pipe), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            built = build(pipe.unet)
        assert torch.equal(denoise(pipe.unet), output)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            expected = build(tiny_stable_diffusion().unet).state_dict()
        state = built.state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], value) for name, value in expected.items())

    def test_animatediff_takes_the_adapter_of_its_base(self, tmp_path):
        pipe = trained_stable_diffusion()
        save_geoconv_weights(pipe, tmp_path)
        with disable_geoconv(pipe):
            video = AnimateDiffPipeline.from_pipe(pipe, motion_adapter=motion_adapter())
        load_geoconv_weights(video, tmp_path)
        weights, expected = geoconv_parameters(video), geoconv_parameters(pipe)
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weight, expected[name]) for name, weight in weights.items())


class TestSeveralAdapters:
    @pytest.fixture
    def pipe(self, files):
        pipe = tiny_stable_diffusion()
        load_geoconv_weights(pipe, files["a"], "a")
        load_geoconv_weights(pipe, files["b"], adapter_name="b")
        return pipe

    def test_coefficients_are_refused_beside_taps_too(self, files):
        pipe = tiny_stable_diffusion()
        load_geoconv_weights(pipe, files["taps"])
        before = denoise(pipe.unet)
        with pytest.raises(SurgeryError, match=r"'taps'.*not.*'multilinear'"):
            load_geoconv_weights(pipe, files["a"], "a")
        assert list_geoconv_adapters(pipe) == {"unet": ["default"]}
        assert has_weights(pipe, weights_of(files["taps"]))
        assert torch.equal(denoise(pipe.unet), before)

    def test_taps_are_mixed_as_coefficients_are(self, files):
        pipe, weights = tiny_stable_diffusion(), weights_of(files["taps"])
        load_geoconv_weights(pipe, files["taps"], "one")
        load_geoconv_weights(pipe, files["taps"], "two")
        set_geoconv_adapters(pipe, ["one", "two"], [0.5, 1.0])
        for name, weight in geoconv_parameters(pipe).items():
            torch.testing.assert_close(weight.detach(), 1.5 * weights[name])

    def test_the_newest_is_active(self, pipe, files):
        assert list_geoconv_adapters(pipe) == {"unet": ["a", "b"]}
        assert get_active_geoconv_adapters(pipe) == {"b": 1.0}
        assert has_weights(pipe, weights_of(files["b"]))

    def test_switching_back_and_forth(self, pipe, files):
        for name in ("a", "b", "a"):
            set_geoconv_adapters(pipe, name)
            assert has_weights(pipe, weights_of(files[name]))
        assert get_active_geoconv_adapters(pipe) == {"a": 1.0}

    def test_they_follow_the_model_to_another_device(self, pipe):
        """Those that are kept beside the model, too; the meta device stands for a GPU."""
        pipe.unet.to("meta")
        for names in (["a", "b"], ["a"], ["b"]):
            set_geoconv_adapters(pipe, names)
            assert {weight.device.type for weight in geoconv_parameters(pipe).values()} == {"meta"}

    def test_one_of_a_component_alone_is_saved(self, files, tmp_path):
        pipe = tiny_stable_diffusion()
        load_geoconv_weights(pipe, files["a"], "a")
        apply_geoconv(pipe.vae)
        draw_geometry(pipe.vae)
        save_geoconv_weights(pipe.vae, tmp_path / "vae")
        remove_geoconv(pipe.vae)
        load_geoconv_weights(pipe, tmp_path / "vae", "v")
        assert list_geoconv_adapters(pipe) == {"vae": ["v"], "unet": ["a"]}
        for name, path in (("a", files["a"]), ("v", tmp_path / "vae")):
            save_geoconv_weights(pipe, tmp_path / name, adapter_name=name)
            saved, expected = weights_of(tmp_path / name), weights_of(path)
            assert saved.keys() == expected.keys()
            assert all(torch.equal(saved[key], expected[key]) for key in saved)
        with pytest.raises(AdapterError, match="no adapter 'b'; there are a, v"):
            save_geoconv_weights(pipe, tmp_path / "none", adapter_name="b")

    def test_a_mix_is_the_weighted_sum(self, pipe, files):
        a, b = weights_of(files["a"]), weights_of(files["b"])
        set_geoconv_adapters(pipe, ["a", "b"], [0.7, 0.3])
        for name, weight in geoconv_parameters(pipe).items():
            torch.testing.assert_close(weight.detach(), 0.7 * a[name] + 0.3 * b[name])
        assert get_active_geoconv_adapters(pipe) == {"a": 0.7, "b": 0.3}
        set_geoconv_adapters(pipe, "b")
        assert has_weights(pipe, b)

    def test_the_mix_of_one_layer_is_the_mix_of_its_responses(self, pipe):
        conv = pipe.unet.conv_in
        image = torch.randn(1, 4, 8, 8)
        outputs = {}
        for mix in (("a",), ("b",), ("a", "b")):
            set_geoconv_adapters(pipe, mix, 0.5)
            outputs[mix] = conv(image) - nn.functional.conv2d(image, conv.weight, conv.bias, padding=1)
        torch.testing.assert_close(outputs[("a", "b")], outputs[("a",)] + outputs[("b",)], rtol=0, atol=1e-5)

    def test_training_one_survives_a_switch(self, pipe):
        with torch.no_grad():
            pipe.unet.conv_in.geo_weight.fill_(5.0)
        set_geoconv_adapters(pipe, "a")
        assert pipe.unet.conv_in.geo_weight.max() < 1
        set_geoconv_adapters(pipe, "b")
        assert (pipe.unet.conv_in.geo_weight == 5.0).all()

    def test_parameters_stay_the_same_objects(self, pipe):
        """So that an optimiser or a compiled graph that holds them goes on working."""
        before = geoconv_parameters(pipe)
        set_geoconv_adapters(pipe, ["a", "b"], [0.5, 0.5])
        assert all(weight is before[name] for name, weight in geoconv_parameters(pipe).items())

    def test_deleting(self, pipe, files):
        delete_geoconv_adapters(pipe, "a")
        assert list_geoconv_adapters(pipe) == {"unet": ["b"]}
        assert has_weights(pipe, weights_of(files["b"]))
        delete_geoconv_adapters(pipe, "b")
        assert not geoconv_status(pipe).patched
        assert torch.equal(denoise(pipe.unet), denoise(tiny_stable_diffusion().unet))

    def test_deleting_the_active_one_leaves_the_stock_model_until_a_switch(self, pipe, files):
        delete_geoconv_adapters(pipe, "b")
        assert get_active_geoconv_adapters(pipe) == {}
        assert torch.equal(denoise(pipe.unet), denoise(tiny_stable_diffusion().unet))
        set_geoconv_adapters(pipe, "a")
        assert has_weights(pipe, weights_of(files["a"]))

    def test_saving_the_mix_or_one_by_name(self, pipe, files, tmp_path):
        set_geoconv_adapters(pipe, ["a", "b"], [0.7, 0.3])
        save_geoconv_weights(pipe, tmp_path / "mix")
        assert has_weights(pipe, weights_of(tmp_path / "mix"))
        save_geoconv_weights(pipe, tmp_path / "named", adapter_name="a")
        assert weights_of(tmp_path / "named").keys() == weights_of(files["a"]).keys()
        assert all(torch.equal(w, weights_of(files["a"])[key]) for key, w in weights_of(tmp_path / "named").items())
        with pytest.raises(AdapterError, match=r"'c'.*a, b"):
            save_geoconv_weights(pipe, tmp_path / "none", adapter_name="c")

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ("sum", r"'product'.*not.*'sum'"),
            ("taps", r"'multilinear'.*not.*'taps'"),
        ],
    )
    def test_an_adapter_of_another_config_is_refused_and_both_stay(self, pipe, files, other, message):
        with pytest.raises(SurgeryError, match=message) as caught:
            load_geoconv_weights(pipe, files[other], "c")
        assert "\n" not in str(caught.value)
        assert list_geoconv_adapters(pipe) == {"unet": ["a", "b"]}
        assert has_weights(pipe, weights_of(files["b"]))

    @pytest.mark.parametrize(
        ("names", "weights", "message"),
        [
            ("c", 1.0, "'c'.*a, b"),
            (["a", "a"], 1.0, "names"),
            (["a", "b"], [1.0], "weight"),
            ([], 1.0, "names"),
            (["a"], [float("nan")], "finite"),
        ],
    )
    def test_refusals(self, pipe, files, names, weights, message):
        with pytest.raises(AdapterError, match=message):
            set_geoconv_adapters(pipe, names, weights)
        assert has_weights(pipe, weights_of(files["b"]))

    def test_copies_are_independent(self, pipe, files):
        twin = pickle.loads(pickle.dumps(copy.deepcopy(pipe.unet)))
        set_geoconv_adapters(twin, "a")
        assert has_weights(pipe, weights_of(files["b"]))
        assert torch.equal(twin.conv_in.geo_weight, weights_of(files["a"])["unet.conv_in.geo_weight"])

    def test_one_under_the_default_name_keeps_nothing_beside_the_model(self, files):
        pipe = tiny_stable_diffusion()
        load_geoconv_weights(pipe, files["a"])
        load_geoconv_weights(pipe, files["b"])
        assert "_geoconv_adapters" not in vars(pipe.unet)
        assert list_geoconv_adapters(pipe) == {"unet": ["default"]}
        assert has_weights(pipe, weights_of(files["b"]))
        load_geoconv_weights(pipe, files["a"], "second")
        assert list_geoconv_adapters(pipe) == {"unet": ["default", "second"]}

    def test_a_component_without_the_chosen_adapter_is_stock(self, files, tmp_path):
        both = trained_stable_diffusion(GeoConvConfig(components=("unet", "vae")))
        save_geoconv_weights(both, tmp_path)
        pipe = tiny_stable_diffusion()
        load_geoconv_weights(pipe, tmp_path, "both")
        load_geoconv_weights(pipe, files["a"], "a")
        assert list_geoconv_adapters(pipe) == {"unet": ["a", "both"], "vae": ["both"]}
        set_geoconv_adapters(pipe, "a")
        assert not any(weight.any() for weight in geoconv_parameters(pipe.vae).values())
        assert any(weight.any() for weight in geoconv_parameters(pipe.unet).values())
