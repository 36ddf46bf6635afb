"""Models in wrappers, in parts, under two names, and with layers that others changed before or after patching."""

import types

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.free_noise_utils import SplitInferenceModule
from peft import LoraConfig, get_peft_model
from tiny_models import tiny_stable_diffusion
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn import functional
from torch.nn.utils import parametrizations
from trained_models import denoise, draw_geometry, latents_and_text

from geopos_diffusers import (
    GeoConvConfig,
    apply_geoconv,
    disable_geoconv,
    geoconv_parameters,
    geoconv_status,
    load_geoconv_weights,
    remove_geoconv,
    save_geoconv_weights,
    set_geoconv_scale,
)
from geopos_diffusers.errors import SurgeryError


def with_lora(unet):
    return get_peft_model(unet, LoraConfig(r=2, target_modules=["to_q"]))


WRAPPERS = pytest.mark.parametrize("wrap", [with_lora, checkpoint_wrapper, nn.DataParallel, torch.compile])


@pytest.fixture
def unet():
    return tiny_stable_diffusion().unet


class TestWrappers:
    @WRAPPERS
    def test_an_adapter_goes_through_them(self, unet, wrap, tmp_path):
        apply_geoconv(unet)
        draw_geometry(unet)
        save_geoconv_weights(unet, tmp_path / "plain")
        wrapped = wrap(unet)
        save_geoconv_weights(wrapped, tmp_path / "wrapped")
        plain, same = ((tmp_path / name / "geoconv_weights.safetensors").read_bytes() for name in ("plain", "wrapped"))
        assert plain == same
        fresh = tiny_stable_diffusion().unet
        load_geoconv_weights(wrap(fresh), tmp_path / "plain")
        assert torch.equal(denoise(fresh), denoise(unet))

    def test_layers_that_run_in_splits_keep_their_names(self, unet, tmp_path):
        """As AnimateDiff's FreeNoise runs them."""
        status = apply_geoconv(unet)
        draw_geometry(unet)
        weights = geoconv_parameters(unet)
        save_geoconv_weights(unet, tmp_path / "plain")
        fresh = tiny_stable_diffusion().unet
        for model in (unet, fresh):
            resnets = model.down_blocks[0].resnets
            resnets[0] = SplitInferenceModule(resnets[0], 1, 0, ["input_tensor", "temb"])
        assert geoconv_status(unet).patched == status.patched
        save_geoconv_weights(unet, tmp_path / "split")
        plain, same = ((tmp_path / name / "geoconv_weights.safetensors").read_bytes() for name in ("plain", "split"))
        assert plain == same
        load_geoconv_weights(fresh, tmp_path / "plain")
        assert all(torch.equal(weight, weights[name]) for name, weight in geoconv_parameters(fresh).items())

    @WRAPPERS
    def test_they_are_patched_and_restored(self, unet, wrap):
        wrapped, before = wrap(unet), {**vars(unet)}
        assert apply_geoconv(wrapped).patched == apply_geoconv(tiny_stable_diffusion().unet).patched
        remove_geoconv(wrapped)
        assert vars(unet) == before
        assert not any("geo_weight" in name for name in unet.state_dict())


class TestParts:
    def test_a_model_with_a_patched_part_is_refused(self):
        vae = tiny_stable_diffusion().vae
        names = apply_geoconv(vae.decoder, GeoConvConfig(encoding="cartesian")).patched
        with pytest.raises(SurgeryError, match="decoder of AutoencoderKL is patched by itself; remove"):
            apply_geoconv(vae)
        assert geoconv_status(vae.decoder).patched == names
        remove_geoconv(vae.decoder)
        assert len(apply_geoconv(vae).patched) > len(names)

    def test_a_model_of_two_names_is_patched_once(self):
        parts = tiny_stable_diffusion().components

        class TwoNames(StableDiffusionPipeline):
            @property
            def components(self):
                return super().components | {"transformer_2": self.unet}

        pipe = TwoNames(**{name: part for name, part in parts.items() if name != "image_encoder"}, image_encoder=None)
        status = apply_geoconv(pipe)
        assert {name.partition(".")[0] for name in status.patched} == {"unet"}
        assert len(geoconv_parameters(pipe)) == len(status.patched)
        assert remove_geoconv(pipe) == status.patched

    def test_a_bare_convolution(self, tmp_path):
        """It is a model of one layer without a name."""
        layer, fresh, sample = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), torch.randn(1, 3, 9, 9)
        fresh.load_state_dict(layer.state_dict())
        apply_geoconv(layer)
        draw_geometry(layer)
        load_geoconv_weights(fresh, save_geoconv_weights(layer, tmp_path))
        with torch.no_grad():
            assert torch.equal(fresh(sample), layer(sample))


def test_a_model_patched_in_inference_mode_can_be_trained(unet):
    with torch.inference_mode():
        apply_geoconv(unet)
    weights = geoconv_parameters(unet).values()
    latents, text = latents_and_text()
    unet(latents, 7, text).sample.sum().backward()
    assert all(weight.grad is not None and weight.requires_grad for weight in weights)


class TestLayersOfOthers:
    def test_a_parametrization_on_top_is_refused_and_kept(self):
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)).eval()
        apply_geoconv(model)
        parametrizations.weight_norm(model[0])
        sample = torch.randn(1, 3, 8, 8)
        before = model(sample)
        with pytest.raises(SurgeryError, match="made 0 a ParametrizedPatchedConv2d after patching"):
            remove_geoconv(model)
        assert torch.equal(model(sample), before)
        nn.utils.parametrize.remove_parametrizations(model[0], "weight")
        assert remove_geoconv(model) == ["0"]
        assert type(model[0]) is nn.Conv2d

    @pytest.mark.parametrize("name", ["forward", "_conv_forward"])
    def test_a_layer_that_convolves_by_itself_is_skipped(self, unet, name):
        """As tools for seamless textures do, which pad in a circle."""

        def circular(self, sample, *_):
            return functional.conv2d(functional.pad(sample, (1, 1, 1, 1), "circular"), self.weight, self.bias)

        setattr(unet.conv_in, name, types.MethodType(circular, unet.conv_in))
        status = apply_geoconv(unet)
        assert "conv_in" not in status.patched
        assert "by itself" in status.skipped["conv_in"]

    def test_a_forward_that_calls_the_old_one_is_patched(self, unet):
        """As trainers of LoRA outside PEFT do."""
        unet.conv_in.org_forward = unet.conv_in.forward
        unet.conv_in.forward = types.MethodType(lambda self, sample: 2 * self.org_forward(sample), unet.conv_in)
        assert "conv_in" in apply_geoconv(unet, GeoConvConfig(target_modules=["conv_in"])).patched
        before = denoise(unet)
        draw_geometry(unet)
        assert (denoise(unet) - before).abs().max() > 1e-3

    def test_removing_while_disabled_leaves_nothing(self, unet):
        before = {**vars(unet.conv_in)}
        apply_geoconv(unet)
        with disable_geoconv(unet):
            remove_geoconv(unet)
        assert vars(unet.conv_in).keys() == before.keys()


@pytest.mark.parametrize(("scale", "layers"), [(10**400, None), (1.0, "("), (1.0, 0), (1.0, "")])
def test_bad_scales_and_layers_change_nothing(unet, scale, layers):
    apply_geoconv(unet)
    with pytest.raises(SurgeryError, match=r"scale must be|layers (must be|is not a valid)"):
        set_geoconv_scale(unet, scale, layers)
    assert {layer.geo_scale for layer in unet.modules() if hasattr(layer, "geo_scale")} == {1.0}
