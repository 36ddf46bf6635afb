"""Weights that are not where they are used: offloading by accelerate and by diffusers, and casting layer by layer.

Devices are all the CPU here. What can break is the same: hooks that replace `forward`, parameters on the meta device
between calls, and weights that are swapped under a layer.
"""

from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook, disk_offload
from accelerate.hooks import remove_hook_from_module
from diffusers import UNet2DConditionModel
from tiny_models import tiny_stable_diffusion
from torch import nn
from trained_models import denoise, draw_geometry, latents_and_text, relative_error, trained_stable_diffusion

from geopos_diffusers import (
    GeoConvConfig,
    apply_geoconv,
    geoconv_parameters,
    geoconv_status,
    load_geoconv_weights,
    remove_geoconv,
    save_geoconv_weights,
    set_geoconv_adapters,
    set_geoconv_scale,
)
from geopos_diffusers.errors import SurgeryError
from geopos_diffusers.patching.config import BASES

CPU = torch.device("cpu")
FP8 = torch.float8_e4m3fn


@pytest.fixture(scope="module")
def trained(request, tmp_path_factory):
    """The adapter's folder, and what a pipeline with it predicts; of coefficients where a test asks for no basis."""
    pipe = trained_stable_diffusion(GeoConvConfig(basis=getattr(request, "param", "multilinear")))
    folder = tmp_path_factory.mktemp("adapter")
    save_geoconv_weights(pipe, folder)
    return folder, denoise(pipe.unet)


def offload_leaf_groups(unet: nn.Module) -> None:
    unet.enable_group_offload(onload_device=CPU, offload_device=CPU, offload_type="leaf_level")


def offload_block_groups(unet: nn.Module) -> None:
    unet.enable_group_offload(onload_device=CPU, offload_device=CPU, offload_type="block_level", num_blocks_per_group=1)


def offload_sequentially(unet: nn.Module) -> None:
    """What `enable_sequential_cpu_offload` does to each model."""
    cpu_offload(unet, CPU, offload_buffers=True)


def offload_whole(unet: nn.Module) -> None:
    """What `enable_model_cpu_offload` does to each model."""
    cpu_offload_with_hook(unet, CPU)


WAYS = (offload_leaf_groups, offload_block_groups, offload_sequentially, offload_whole)


class TestOffload:
    @pytest.mark.parametrize("trained", BASES, indirect=True)
    @pytest.mark.parametrize("offload", WAYS)
    @pytest.mark.parametrize("order", ["before patching", "after patching"])
    def test_either_order(self, trained, offload, order):
        folder, expected = trained
        unet = tiny_stable_diffusion().unet
        if order == "before patching":
            offload(unet)
        load_geoconv_weights(unet, folder)
        if order == "after patching":
            offload(unet)
        for _ in range(2):
            assert torch.equal(denoise(unet), expected)

    @pytest.mark.parametrize("offload", WAYS)
    def test_scale_and_removal_while_offloaded(self, trained, offload):
        unet = tiny_stable_diffusion().unet
        base = denoise(unet)
        offload(unet)
        load_geoconv_weights(unet, trained[0])
        set_geoconv_scale(unet, 0.0)
        assert torch.equal(denoise(unet), base)
        remove_geoconv(unet)
        assert torch.equal(denoise(unet), base)


class TestSequentialOffload:
    @pytest.mark.parametrize("place", ["memory", "disk"])
    @pytest.mark.parametrize("order", ["before patching", "after patching"])
    def test_weights_are_saved_replaced_and_mixed_where_they_are_offloaded(self, trained, tmp_path, order, place):
        folder, expected = trained
        unet = tiny_stable_diffusion().unet
        if order == "after patching":
            apply_geoconv(unet)
        if place == "memory":
            offload_sequentially(unet)
        else:
            disk_offload(unet, tmp_path / "weights", CPU)
        if order == "before patching":
            apply_geoconv(unet)
        assert unet.conv_in.geo_weight.is_meta
        load_geoconv_weights(unet, folder, "a")
        assert torch.equal(denoise(unet), expected)
        save_geoconv_weights(unet, tmp_path / "adapter")
        other = tiny_stable_diffusion().unet
        load_geoconv_weights(other, tmp_path / "adapter")
        assert torch.equal(denoise(other), expected)
        set_geoconv_adapters(unet, "a", 0.5)
        set_geoconv_scale(other, 0.5)
        torch.testing.assert_close(denoise(unet), denoise(other), rtol=0, atol=1e-5)

    def test_ending_it_brings_the_geometry_weights_back(self, trained):
        folder, expected = trained
        unet = tiny_stable_diffusion().unet
        offload_sequentially(unet)
        load_geoconv_weights(unet, folder)
        remove_hook_from_module(unet, recurse=True)
        assert not unet.conv_in.geo_weight.is_meta
        assert torch.equal(denoise(unet), expected)

    def test_a_device_map_that_puts_parts_on_disk(self, trained, tmp_path):
        folder, expected = trained
        tiny_stable_diffusion().unet.save_pretrained(tmp_path)
        parts = dict.fromkeys(("conv_in", "time_embedding", "conv_norm_out", "conv_out"), "cpu")
        device_map = parts | dict.fromkeys(("down_blocks", "mid_block", "up_blocks"), "disk")
        unet = UNet2DConditionModel.from_pretrained(
            tmp_path, device_map=device_map, offload_folder=tmp_path / "weights"
        )
        load_geoconv_weights(unet, folder)
        assert torch.equal(denoise(unet), expected)
        remove_geoconv(unet)
        assert torch.equal(denoise(unet), denoise(tiny_stable_diffusion().unet))

    def test_weights_that_a_block_loads_together_are_refused_and_nothing_changes(self):
        unet = tiny_stable_diffusion().unet
        cpu_offload(unet, CPU, preload_module_classes=["ResnetBlock2D"])
        with pytest.raises(SurgeryError, match="offloaded"):
            apply_geoconv(unet)
        assert not geoconv_status(unet).patched

    def test_pipeline(self, trained):
        pipe = tiny_stable_diffusion()
        for model in (pipe.unet, pipe.vae, pipe.text_encoder):
            offload_sequentially(model)
        load_geoconv_weights(pipe, trained[0])
        offloaded = pipe("a hand", num_inference_steps=2, generator=torch.manual_seed(0), output_type="np").images
        pipe = trained_stable_diffusion()
        plain = pipe("a hand", num_inference_steps=2, generator=torch.manual_seed(0), output_type="np").images
        assert (offloaded == plain).all()


class TestGroupOffloadToDisk:
    """Its files are written when it is enabled and read before each call, whatever happens to the model between."""

    def offload(self, unet: nn.Module, folder: Path) -> None:
        unet.enable_group_offload(CPU, CPU, offload_type="leaf_level", offload_to_disk_path=str(folder))

    def test_patched_first(self, trained, tmp_path):
        folder, expected = trained
        unet = tiny_stable_diffusion().unet
        load_geoconv_weights(unet, folder)
        self.offload(unet, tmp_path / "groups")
        for _ in range(2):
            assert torch.equal(denoise(unet), expected)
        with pytest.raises(SurgeryError, match="group-offloaded to disk"):
            save_geoconv_weights(unet, tmp_path / "adapter")
        with pytest.raises(SurgeryError, match="group-offloaded to disk"):
            load_geoconv_weights(unet, folder)
        assert not (tmp_path / "adapter").exists()

    def test_patching_later_is_refused(self, tmp_path):
        unet = tiny_stable_diffusion().unet
        self.offload(unet, tmp_path / "groups")
        with pytest.raises(SurgeryError, match=r"group-offloaded \(disk\)"):
            apply_geoconv(unet)
        assert not geoconv_status(unet).patched


class TestTransposedConvolutions:
    """Hooks store a module's `forward`, which is all that a transposed convolution has."""

    def model(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ConvTranspose2d(4, 3, 4, 2, padding=1)).eval()

    def test_patched_first(self):
        model, image = self.model(), torch.ones(1, 3, 8, 8)
        apply_geoconv(model)
        draw_geometry(model)
        expected = model(image)
        offload_sequentially(model)
        assert torch.equal(model(image), expected)
        with pytest.raises(SurgeryError, match=r"hooks .* on 1"):
            remove_geoconv(model)
        remove_hook_from_module(model, recurse=True)
        assert remove_geoconv(model) == ["0", "1"]
        assert torch.equal(model(image), self.model()(image))

    def test_hooked_first_they_are_skipped_with_the_reason(self):
        model = self.model()
        offload_sequentially(model)
        status = apply_geoconv(model)
        assert status.patched == ["0"]
        assert status.skipped["1"].startswith("a hook")
        with pytest.raises(SurgeryError, match="a hook"):
            apply_geoconv(self.hooked(), GeoConvConfig(target_modules=["1"]))

    def hooked(self) -> nn.Module:
        model = self.model()
        offload_sequentially(model)
        return model


class TestLayerwiseCasting:
    """Weights kept in 8-bit floats and cast up for each call: a rounding of all weights, geometry weights too."""

    @pytest.mark.parametrize("trained", BASES, indirect=True)
    @pytest.mark.parametrize("order", ["before patching", "after patching"])
    def test_either_order(self, trained, order):
        folder, expected = trained
        unet = tiny_stable_diffusion().unet
        if order == "before patching":
            unet.enable_layerwise_casting(storage_dtype=FP8, compute_dtype=torch.float32)
        load_geoconv_weights(unet, folder)
        if order == "after patching":
            unet.enable_layerwise_casting(storage_dtype=FP8, compute_dtype=torch.float32)
        denoise(unet)
        inner = unet.down_blocks[0].resnets[0].conv1
        assert inner.weight.dtype == inner.geo_weight.dtype == FP8
        output = denoise(unet)
        assert relative_error(output, expected) < 0.2
        with_geometry = relative_error(output, expected)
        set_geoconv_scale(unet, 0.0)
        assert relative_error(denoise(unet), expected) > 2 * with_geometry

    def test_an_adapter_is_saved_from_it(self, trained, tmp_path):
        unet = tiny_stable_diffusion().unet
        load_geoconv_weights(unet, trained[0])
        unet.enable_layerwise_casting(storage_dtype=FP8, compute_dtype=torch.float32)
        denoise(unet)
        save_geoconv_weights(unet, tmp_path, dtype=torch.float32)
        other = tiny_stable_diffusion().unet
        load_geoconv_weights(other, tmp_path)
        assert relative_error(denoise(other), trained[1]) < 0.2

    def test_adapters_are_switched_and_mixed_in_it(self, trained):
        unet = tiny_stable_diffusion().unet
        unet.enable_layerwise_casting(storage_dtype=FP8, compute_dtype=torch.float32)
        for name in ("a", "b"):
            load_geoconv_weights(unet, trained[0], name)
        denoise(unet)
        weight = unet.down_blocks[0].resnets[0].conv1.geo_weight
        assert weight.dtype == FP8
        stored = weight.detach().float()
        set_geoconv_adapters(unet, "a")
        assert torch.equal(weight.float(), stored)
        set_geoconv_adapters(unet, ["a", "b"], [0.3, 0.6])
        assert torch.equal(weight.float(), (0.3 * stored + 0.6 * stored).to(FP8).float())
        assert relative_error(denoise(unet), trained[1]) < 0.2


class TestInt8Weights:
    """torchao's weight-only quantisation.

    `Int8WeightOnlyConfig` is for linear layers (its tensor has no convolution); `IntxWeightOnlyConfig` takes both.
    """

    @pytest.mark.parametrize("order", ["before patching", "after patching"])
    @pytest.mark.parametrize("layers", [nn.Linear, nn.Conv2d])
    def test_either_order(self, trained, layers, order):
        quantization = pytest.importorskip("torchao.quantization")
        folder, expected = trained
        unet = tiny_stable_diffusion().unet
        if order == "after patching":
            load_geoconv_weights(unet, folder)
        config = quantization.Int8WeightOnlyConfig()
        if layers is nn.Conv2d:
            config = quantization.IntxWeightOnlyConfig(weight_dtype=torch.int8)
        quantization.quantize_(unet, config, filter_fn=lambda module, name: isinstance(module, layers))
        if order == "before patching":
            load_geoconv_weights(unet, folder)
        chosen = [module for module in unet.modules() if isinstance(module, layers)]
        assert chosen
        assert all(type(module.weight) is not nn.Parameter for module in chosen)
        assert all(type(weight) is nn.Parameter for weight in geoconv_parameters(unet).values())
        assert relative_error(denoise(unet), expected) < 0.05
        latents, text = latents_and_text()
        unet(latents, 7, text).sample.sum().backward()
        assert unet.conv_in.geo_weight.grad.any()
