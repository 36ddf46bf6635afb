"""GeoConv beside LoRA on the same convolutions, whichever comes first, and the switches that pipelines have."""

import copy

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from peft import BOFTConfig, HRAConfig, LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from tiny_models import tiny_stable_diffusion
from torch import nn
from trained_models import denoise, draw_geometry, trained_stable_diffusion

from geopos_diffusers import (
    GeoConvConfig,
    apply_geoconv,
    geoconv_parameters,
    geoconv_status,
    load_geoconv_weights,
    remove_geoconv,
    save_geoconv_weights,
    set_geoconv_scale,
)
from geopos_diffusers.errors import AdapterError
from geopos_diffusers.patching.config import BASES

LORA = LoraConfig(r=2, lora_alpha=2, target_modules=["conv1", "conv2", "to_q"], init_lora_weights=False)


def add_lora(unet: nn.Module, name: str = "default", seed: int = 0) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet.add_adapter(LORA, adapter_name=name)


@pytest.fixture
def unet() -> nn.Module:
    return trained_stable_diffusion().unet


class TestLora:
    @pytest.mark.parametrize("basis", BASES)
    def test_either_order_gives_one_model(self, basis):
        first, then = tiny_stable_diffusion().unet, tiny_stable_diffusion().unet
        apply_geoconv(first, GeoConvConfig(basis=basis))
        add_lora(first)
        add_lora(then)
        apply_geoconv(then, GeoConvConfig(basis=basis))
        for model in (first, then):
            draw_geometry(model)
        assert geoconv_parameters(first).keys() == geoconv_parameters(then).keys()
        assert not any("lora" in name for name in geoconv_parameters(then))
        assert torch.equal(denoise(first), denoise(then))

    def test_copies_of_patched_layers_are_not_saved(self, unet, tmp_path):
        unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], modules_to_save=["conv_in"]))
        with pytest.raises(AdapterError, match=r"PEFT keeps copies of unet.conv_in, .* out of modules_to_save"):
            save_geoconv_weights(unet, tmp_path / "adapter")
        assert not (tmp_path / "adapter").exists()

    def test_both_terms_add_up_in_one_layer(self, unet):
        name, image = "down_blocks.0.resnets.0.conv1", torch.randn(1, 8, 6, 6)
        geometry = unet.get_submodule(name)(image)
        base = tiny_stable_diffusion().unet.get_submodule(name)(image)
        add_lora(unet)
        both = unet.get_submodule(name)(image)
        set_geoconv_scale(unet, 0.0)
        lora = unet.get_submodule(name)(image)
        torch.testing.assert_close(both - base, (geometry - base) + (lora - base), rtol=0, atol=1e-5)
        assert (lora - base).abs().max() > 1e-3

    def test_its_own_factors_are_plain_convolutions(self, unet):
        add_lora(unet)
        factors = [m.lora_A["default"] for m in unet.modules() if isinstance(m, LoraLayer)]
        assert all(getattr(factor, "geo_weight", None) is None for factor in factors)

    @pytest.mark.parametrize("config", [BOFTConfig(boft_block_size=2), HRAConfig(r=2)], ids=lambda c: c.peft_type.name)
    @pytest.mark.parametrize("order", ["before patching", "after patching"])
    def test_adapters_that_convolve_by_themselves_are_told_of(self, config, order):
        unet = tiny_stable_diffusion().unet
        config.target_modules = {"conv1"}
        if order == "before patching":
            get_peft_model(unet, config)
        apply_geoconv(unet)
        if order == "after patching":
            get_peft_model(unet, config)
        status, name = geoconv_status(unet), "down_blocks.0.resnets.0.conv1"
        assert name not in status.patched
        assert "around it computes the convolution" in status.skipped[name]
        assert "down_blocks.0.resnets.0.conv2" in status.patched
        before = denoise(unet)
        draw_geometry(unet)
        assert not torch.equal(denoise(unet), before)
        set_geoconv_scale(unet, 0.0)
        assert torch.equal(denoise(unet), before)

    def test_several_switched_and_mixed(self, unet):
        add_lora(unet, "a", seed=1)
        add_lora(unet, "b", seed=2)
        plain = tiny_stable_diffusion().unet
        add_lora(plain, "a", seed=1)
        add_lora(plain, "b", seed=2)
        for names, weights in ((["a"], [1.0]), (["b"], [0.5]), (["a", "b"], [0.7, 0.3])):
            for model in (unet, plain):
                model.set_adapters(names, weights)
            set_geoconv_scale(unet, 0.0)
            assert torch.equal(denoise(unet), denoise(plain))
            set_geoconv_scale(unet, 1.0)
            assert not torch.allclose(denoise(unet), denoise(plain))

    def test_fused_and_unfused(self, unet):
        add_lora(unet)
        expected = denoise(unet)
        unet.fuse_lora()
        torch.testing.assert_close(denoise(unet), expected, rtol=0, atol=1e-5)
        unet.unfuse_lora()
        torch.testing.assert_close(denoise(unet), expected, rtol=0, atol=1e-5)

    def test_patching_a_fused_model_and_removing(self):
        model = tiny_stable_diffusion().unet
        add_lora(model)
        model.fuse_lora()
        expected = denoise(model)
        apply_geoconv(model)
        draw_geometry(model)
        assert not torch.allclose(denoise(model), expected)
        remove_geoconv(model)
        assert torch.equal(denoise(model), expected)

    def test_removed_again(self, unet):
        expected = denoise(unet)
        add_lora(unet)
        unet.unload_lora()
        assert torch.equal(denoise(unet), expected)
        assert remove_geoconv(unet)
        assert torch.equal(denoise(unet), denoise(tiny_stable_diffusion().unet))

    def test_geoconv_removed_under_lora(self, unet):
        add_lora(unet)
        remove_geoconv(unet)
        plain = tiny_stable_diffusion().unet
        add_lora(plain)
        assert torch.equal(denoise(unet), denoise(plain))

    def test_both_kinds_of_weights_train(self, unet):
        add_lora(unet)
        unet.requires_grad_(False)
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_("lora" in name or name.endswith("geo_weight"))
        denoise_with_gradients(unet).square().mean().backward()
        layer = unet.down_blocks[0].resnets[0].conv1
        assert layer.base_layer.geo_weight.grad.any()
        assert layer.lora_A["default"].weight.grad.any()
        assert layer.base_layer.weight.grad is None


def denoise_with_gradients(unet: nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return unet(torch.randn(1, 4, 8, 8, generator=generator), 3, torch.ones(1, 5, 16)).sample


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folder of a LoRA and a GeoConv adapter saved from one pipeline, and its prediction."""
    folder = tmp_path_factory.mktemp("files")
    pipe = trained_stable_diffusion()
    add_lora(pipe.unet)
    pipe.save_lora_weights(folder / "lora", unet_lora_layers=get_peft_model_state_dict(pipe.unet))
    save_geoconv_weights(pipe, folder / "geoconv")
    return folder, denoise(pipe.unet)


class TestLoadLoraWeights:
    @pytest.mark.parametrize("order", ["LoRA first", "GeoConv first"])
    def test_either_order(self, files, order):
        folder, expected = files
        pipe = tiny_stable_diffusion()
        if order == "LoRA first":
            pipe.load_lora_weights(folder / "lora")
        load_geoconv_weights(pipe, folder / "geoconv")
        if order == "GeoConv first":
            pipe.load_lora_weights(folder / "lora")
        torch.testing.assert_close(denoise(pipe.unet), expected, rtol=0, atol=1e-6)
        pipe.unload_lora_weights()
        remove_geoconv(pipe)
        assert torch.equal(denoise(pipe.unet), denoise(tiny_stable_diffusion().unet))

    def test_the_saved_lora_holds_no_geometry_weight(self, files):
        assert not [key for key in load_file(next((files[0] / "lora").iterdir())) if "geo_weight" in key]


class TestPipelineSwitches:
    """Each switch does to a patched model what it does to the stock one: on and off again, the output is as before."""

    @pytest.mark.parametrize("order", ["before patching", "after patching"])
    def test_freeu(self, order):
        pipe = tiny_stable_diffusion()
        plain = copy.deepcopy(pipe.unet)
        if order == "after patching":
            apply_geoconv(pipe)
        pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
        apply_geoconv(pipe)
        plain.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
        assert torch.equal(denoise(pipe.unet), denoise(plain))
        draw_geometry(pipe)
        switched = denoise(pipe.unet)
        pipe.disable_freeu()
        assert torch.equal(denoise(pipe.unet), denoise(trained_stable_diffusion().unet))
        assert not torch.equal(denoise(pipe.unet), switched)

    @pytest.mark.parametrize("order", ["before patching", "after patching"])
    def test_attention_slicing(self, order):
        pipe = tiny_stable_diffusion()
        if order == "before patching":
            pipe.enable_attention_slicing(1)
        apply_geoconv(pipe)
        draw_geometry(pipe)
        if order == "after patching":
            pipe.enable_attention_slicing(1)
        expected = denoise(trained_stable_diffusion().unet)
        torch.testing.assert_close(denoise(pipe.unet), expected, rtol=0, atol=1e-5)

    def test_several_pipelines_share_one_unet(self):
        pipe = tiny_stable_diffusion()
        other = StableDiffusionImg2ImgPipeline.from_pipe(pipe)
        apply_geoconv(pipe)
        draw_geometry(pipe)
        assert other.unet is pipe.unet
        assert geoconv_parameters(other).keys() == geoconv_parameters(pipe).keys()
        apply_geoconv(other)
        set_geoconv_scale(other, 0.5)
        assert pipe.unet.conv_in.geo_scale == 0.5
        assert remove_geoconv(other)
        assert torch.equal(denoise(pipe.unet), denoise(tiny_stable_diffusion().unet))

    @pytest.mark.parametrize("encoding", ["product", "cartesian"])
    def test_images_of_a_whole_pipeline(self, encoding):
        def draw(pipe):
            generator = torch.Generator().manual_seed(0)
            return pipe("a hand", num_inference_steps=2, generator=generator, output_type="np").images

        pipe = tiny_stable_diffusion()
        expected = draw(pipe)
        apply_geoconv(pipe, GeoConvConfig(encoding=encoding, components=("unet", "vae")))
        assert (draw(pipe) == expected).all()
        draw_geometry(pipe)
        assert abs(draw(pipe) - expected).max() > 0.01
