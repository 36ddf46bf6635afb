"""Saving patched pipelines whole, loading them in a new process, and several adapters on one base."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    AutoencoderOobleck,
    ControlNetModel,
    MotionAdapter,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNetMotionModel,
)
from safetensors.torch import load_file
from tiny_models import tiny_stable_diffusion
from torch import nn
from trained_models import denoise, draw_geometry, trained_stable_diffusion

from geopos_diffusers import (
    GeoConv2d,
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
from geopos_diffusers.pipelines.loading import recommended_guidance


class TestSavePretrained:
    def test_stock_files_hold_stock_weights_and_the_adapter_stands_beside(self, tmp_path, caplog):
        pipe = trained_stable_diffusion()
        pipe.save_pretrained(tmp_path)
        saved = load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
        assert saved.keys() == tiny_stable_diffusion().unet.state_dict().keys()
        assert (tmp_path / "unet" / "geoconv.adapter" / "geoconv_weights.safetensors").is_file()
        assert [record.message for record in caplog.records if "GeoConv adapter" in record.message] == [
            f"UNet2DConditionModel is patched: {tmp_path}/unet gets its stock weights, "
            f"{tmp_path}/unet/geoconv.adapter its GeoConv adapter"
        ]
        assert not (tmp_path / "vae" / "geoconv.adapter").exists()

    def test_a_plain_reload_is_the_stock_model_and_the_adapter_brings_it_back(self, tmp_path):
        pipe = trained_stable_diffusion(GeoConvConfig(components=("unet", "vae")))
        pipe.save_pretrained(tmp_path)
        reloaded = StableDiffusionPipeline.from_pretrained(tmp_path)
        assert torch.equal(denoise(reloaded.unet), denoise(tiny_stable_diffusion().unet))
        status = load_geoconv_weights(reloaded, tmp_path)
        assert {name.partition(".")[0] for name in status.patched} == {"unet", "vae"}
        assert torch.equal(denoise(reloaded.unet), denoise(pipe.unet))
        latents = torch.ones(1, 4, 4, 4)
        assert torch.equal(reloaded.vae.decode(latents).sample, pipe.vae.decode(latents).sample)

    def test_variants(self, tmp_path):
        pipe = trained_stable_diffusion()
        pipe.save_pretrained(tmp_path / "fp16", variant="fp16")
        reloaded = StableDiffusionPipeline.from_pretrained(tmp_path / "fp16", variant="fp16")
        assert torch.equal(denoise(reloaded.unet), denoise(tiny_stable_diffusion().unet))
        load_geoconv_weights(reloaded, tmp_path / "fp16")
        assert torch.equal(denoise(reloaded.unet), denoise(pipe.unet))
        pipe.save_pretrained(tmp_path / "plain")
        with pytest.raises(ValueError, match="variant=fp16"):
            StableDiffusionPipeline.from_pretrained(tmp_path / "plain", variant="fp16")

    @pytest.mark.parametrize("part", ["", "unet"])
    def test_the_folder_name_of_earlier_releases_is_read(self, tmp_path, part):
        pipe = trained_stable_diffusion()
        pipe.save_pretrained(tmp_path)
        (tmp_path / "unet" / "geoconv.adapter").rename(tmp_path / "unet" / "geoconv")
        reloaded = tiny_stable_diffusion()
        load_geoconv_weights(reloaded, tmp_path / part)
        assert torch.equal(denoise(reloaded.unet), denoise(pipe.unet))

    def test_one_model_alone(self, tmp_path):
        pipe = trained_stable_diffusion()
        pipe.unet.save_pretrained(tmp_path / "model", max_shard_size="100KB")
        assert (tmp_path / "model" / "diffusion_pytorch_model.safetensors.index.json").is_file()
        model = UNet2DConditionModel.from_pretrained(tmp_path / "model")
        load_geoconv_weights(model, tmp_path / "model")
        assert torch.equal(denoise(model), denoise(pipe.unet))

    def test_one_model_takes_its_part_of_a_saved_pipeline(self, tmp_path):
        pipe = trained_stable_diffusion(GeoConvConfig(components=("unet", "vae")))
        pipe.save_pretrained(tmp_path)
        vae = AutoencoderKL.from_pretrained(tmp_path, subfolder="vae")
        load_geoconv_weights(vae, tmp_path)
        assert all(torch.equal(w, geoconv_parameters(pipe.vae)[name]) for name, w in geoconv_parameters(vae).items())

    def test_weight_normalised_convolutions_of_a_model_just_loaded(self, tmp_path):
        sizes = {"encoder_hidden_size": 8, "decoder_channels": 8, "decoder_input_channels": 4, "audio_channels": 2}
        vae = AutoencoderOobleck(**sizes, downsampling_ratios=[2, 4], channel_multiples=[1, 2]).eval()
        apply_geoconv(vae)
        draw_geometry(vae)
        vae.save_pretrained(tmp_path)
        reloaded = AutoencoderOobleck.from_pretrained(tmp_path).eval()
        assert reloaded.encoder.conv1.weight.is_meta  # until the first call
        load_geoconv_weights(reloaded, tmp_path)
        latents = torch.ones(1, 4, 6)
        with torch.no_grad():
            assert torch.equal(reloaded.decode(latents).sample, vae.decode(latents).sample)

    def test_other_processes_of_a_run_write_no_adapter(self, tmp_path):
        trained_stable_diffusion().unet.save_pretrained(tmp_path, is_main_process=False)
        assert not (tmp_path / "geoconv.adapter").exists()

    def test_training_checkpoints_keep_the_geometry_weights(self, tmp_path):
        unet = trained_stable_diffusion().unet
        unet.save_pretrained(tmp_path)
        state = unet.state_dict()
        assert sum(key.endswith(".geo_weight") for key in state) == len(geoconv_parameters(unet))
        other = trained_stable_diffusion(seed=1).unet
        assert other.load_state_dict(state) == ([], [])
        assert torch.equal(denoise(other), denoise(unet))

    def test_remove_puts_the_stock_method_back(self, tmp_path):
        unet = trained_stable_diffusion().unet
        remove_geoconv(unet)
        assert "save_pretrained" not in vars(unet)
        unet.save_pretrained(tmp_path)
        assert not (tmp_path / "geoconv.adapter").exists()

    @pytest.mark.parametrize("clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
    def test_copies_save_their_own_weights(self, tmp_path, clone):
        unet = trained_stable_diffusion().unet
        twin = clone(unet)
        draw_geometry(twin, seed=1)
        twin.save_pretrained(tmp_path)
        load_geoconv_weights(unet, tmp_path)
        assert torch.equal(denoise(unet), denoise(twin))

    def test_geoconv_layers_that_a_model_was_built_with_are_its_own_weights(self, tmp_path):
        class Built(UNet2DConditionModel):
            def __init__(self):
                super().__init__(**tiny_stable_diffusion().unet.config)
                self.extra = GeoConv2d(1, 1, 3)

        model = Built()
        apply_geoconv(model)
        model.save_pretrained(tmp_path)
        assert "extra.geo_weight" in load_file(tmp_path / "diffusion_pytorch_model.safetensors")

    def test_the_state_dict_is_whole_again_after_saving(self, tmp_path):
        unet = trained_stable_diffusion().unet
        keys = unet.state_dict().keys()
        unet.save_pretrained(tmp_path)
        assert unet.state_dict().keys() == keys

    @pytest.mark.parametrize("way", ["patched", "adapter loaded"])
    def test_the_recommended_guidance_is_kept(self, tmp_path, way):
        tiny_stable_diffusion().save_pretrained(tmp_path / "base")
        (tmp_path / "base" / "generation_config.json").write_text('{"guidance_scale": 2.5}')
        pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "base")
        if way == "patched":
            apply_geoconv(pipe)
        else:
            load_geoconv_weights(pipe, save_geoconv_weights(trained_stable_diffusion(), tmp_path / "adapter"))
        pipe.save_pretrained(tmp_path / "patched")
        assert recommended_guidance(tmp_path / "patched") == 2.5
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "generation_config.json").write_text('{"guidance_scale": 7}')
        pipe.save_pretrained(tmp_path / "own")
        assert recommended_guidance(tmp_path / "own") == 7
        remove_geoconv(pipe)
        assert "save_pretrained" not in vars(pipe)

    @pytest.mark.slow
    def test_in_a_new_process(self, tmp_path):
        pipe = trained_stable_diffusion()
        pipe.save_pretrained(tmp_path)
        torch.save(denoise(pipe.unet), tmp_path / "expected.pt")
        program = (
            "import sys, torch\n"
            "from diffusers import DiffusionPipeline\n"
            "from trained_models import denoise\n"
            "from geopos_diffusers import load_geoconv_weights\n"
            "pipe = DiffusionPipeline.from_pretrained(sys.argv[1])\n"
            "load_geoconv_weights(pipe, sys.argv[1])\n"
            "assert torch.equal(denoise(pipe.unet), torch.load(sys.argv[1] + '/expected.pt'))\n"
        )
        path = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            env=os.environ | {"PYTHONPATH": ":".join(path), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


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
