"""Surgery on a real pipeline: what is chosen, what stays the same, what is refused."""

import copy
import pickle
import types
from collections.abc import Callable

import pytest
import torch
from tiny_models import tiny_stable_diffusion
from torch import nn
from trained_models import draw_geometry

from geopos_diffusers import (
    GeoConvConfig,
    apply_geoconv,
    disable_geoconv,
    geoconv_parameters,
    geoconv_status,
    remove_geoconv,
    set_geoconv_scale,
)
from geopos_diffusers.errors import SurgeryError


@pytest.fixture
def pipe():
    return tiny_stable_diffusion()


def denoise(pipe) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, pipe.unet.config.in_channels, 16, 16, generator=generator)
    text = torch.randn(2, 5, pipe.unet.config.cross_attention_dim, generator=generator)
    with torch.no_grad():
        return pipe.unet(latents, 7, text).sample


class TestPatching:
    def test_output_stays_bitwise_equal_and_changes_once_trained(self, pipe):
        before = denoise(pipe)
        apply_geoconv(pipe)
        assert torch.equal(denoise(pipe), before)
        draw_geometry(pipe)
        assert (denoise(pipe) - before).abs().max() > 0.01

    def test_base_state_dict_is_unchanged(self, pipe):
        before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
        status = apply_geoconv(pipe)
        after = pipe.unet.state_dict()
        added = {name.removeprefix("unet.") + ".geo_weight" for name in status.patched}
        assert after.keys() - before.keys() == added
        assert all(torch.equal(after[name], value) for name, value in before.items())

    def test_gradients_of_the_base_stay_as_they_were_set(self, pipe):
        pipe.unet.requires_grad_(False)
        apply_geoconv(pipe)
        trainable = {name for name, parameter in pipe.unet.named_parameters() if parameter.requires_grad}
        assert trainable == {name.removeprefix("unet.") for name in geoconv_parameters(pipe)}

    def test_twice_with_one_config_is_a_no_op(self, pipe):
        first = apply_geoconv(pipe)
        draw_geometry(pipe)
        output = denoise(pipe)
        assert apply_geoconv(pipe) == first
        assert torch.equal(denoise(pipe), output)

    def test_twice_with_another_config_names_both(self, pipe):
        apply_geoconv(pipe)
        with pytest.raises(SurgeryError, match=r"unet.*'product'.*not.*'sum'"):
            apply_geoconv(pipe, GeoConvConfig(encoding="sum"))

    def test_remove_restores_everything(self, pipe):
        before, output = copy.deepcopy(pipe.unet), denoise(pipe)
        apply_geoconv(pipe, GeoConvConfig(shift_scope="model"))
        draw_geometry(pipe)
        assert len(remove_geoconv(pipe)) > 0
        assert torch.equal(denoise(pipe), output)
        assert pipe.unet.state_dict().keys() == before.state_dict().keys()
        for (name, module), (_, original) in zip(pipe.unet.named_modules(), before.named_modules(), strict=True):
            assert type(module) is type(original), name
            assert vars(module).keys() == vars(original).keys(), name
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
        assert remove_geoconv(pipe) == []

    def test_two_components(self, pipe):
        status = apply_geoconv(pipe, GeoConvConfig(components=("unet", "vae")))
        assert {name.partition(".")[0] for name in status.patched} == {"unet", "vae"}

    def test_of_several_denoisers_those_without_convolutions_are_left_alone(self, pipe):
        """StableUnCLIPPipeline has a prior of linear layers beside its UNet."""
        both = types.SimpleNamespace(components={"prior": nn.Sequential(nn.Linear(2, 2)), "unet": pipe.unet})
        status = apply_geoconv(both)
        assert status.patched == [f"unet.{name}" for name in geoconv_status(pipe.unet).patched]
        with pytest.raises(SurgeryError, match="no convolution of Sequential can be patched: it has none"):
            apply_geoconv(types.SimpleNamespace(components={"prior": nn.Sequential(nn.Linear(2, 2))}))

    def test_quantised_linear_layers_beside_it(self):
        """torch's quantisation copies the hooks of what it replaces."""
        model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(64, 5)).eval()
        apply_geoconv(model)
        draw_geometry(model)
        images = torch.randn(2, 3, 4, 4)
        quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
        assert type(quantised[2]) is not nn.Linear
        torch.testing.assert_close(quantised(images), model(images), rtol=0, atol=0.05)

    @pytest.mark.parametrize("clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
    @pytest.mark.parametrize("scope", ["layer", "model"])
    def test_copies_and_pickles_are_independent(self, pipe, clone, scope):
        apply_geoconv(pipe, GeoConvConfig(shift_scope=scope))
        draw_geometry(pipe)
        output, twin = denoise(pipe), tiny_stable_diffusion(seed=1)
        twin.unet = clone(pipe.unet)
        assert torch.equal(denoise(twin), output)
        set_geoconv_scale(twin, 0.0)
        assert torch.equal(denoise(pipe), output)
        assert geoconv_status(twin).patched == geoconv_status(pipe).patched

    def test_a_copy_of_one_layer_copies_nothing_of_the_model_around_it(self, pipe):
        """PEFT copies layers that are to be trained whole; a model may have hooks that cannot be pickled."""
        apply_geoconv(pipe, GeoConvConfig(shift_scope="model"))
        pipe.unet.register_forward_hook(lambda *call: None)
        draw_geometry(pipe)
        twin, x = pickle.loads(pickle.dumps(copy.deepcopy(pipe.unet.conv_in))), torch.randn(1, 4, 6, 6)
        assert torch.equal(twin(x), pipe.unet.conv_in(x))

    def test_torch_build_of_the_same_class_is_a_plain_convolution(self, pipe):
        """PEFT builds LoRA factors with type(layer)(...)."""
        apply_geoconv(pipe)
        twin = type(pipe.unet.conv_in)(4, 8, 3, padding=1, bias=False)
        plain = nn.Conv2d(4, 8, 3, padding=1, bias=False)
        plain.load_state_dict(twin.state_dict())
        x = torch.randn(1, 4, 6, 6)
        assert torch.equal(twin(x), plain(x))


class TestTargets:
    def test_default_is_every_kernel_of_two_taps_or_more(self, pipe):
        status = apply_geoconv(pipe)
        expected = {
            f"unet.{name}"
            for name, m in pipe.unet.named_modules()
            if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)
        }
        assert set(status.patched) == expected
        reason = "kernel 1x1 has one tap along an axis, which is not patched by default; name it to patch it"
        assert set(status.skipped.values()) == {reason}

    def test_of_taps_the_reason_is_the_axes(self, pipe):
        status = apply_geoconv(pipe, GeoConvConfig(basis="taps"))
        reason = "kernel 1x1 has one tap along an axis, too few to tell the axes apart; name it to patch it"
        assert set(status.skipped.values()) == {reason}

    def test_list_of_name_endings(self, pipe):
        status = apply_geoconv(pipe, GeoConvConfig(target_modules=["conv_in", "resnets.0.conv1"]))
        assert status.patched
        assert all(name.endswith(("conv_in", "resnets.0.conv1")) for name in status.patched)

    def test_regular_expression_matches_the_whole_name(self, pipe):
        status = apply_geoconv(pipe, GeoConvConfig(target_modules=r"up_blocks\..*conv2"))
        assert status.patched
        assert all(name.startswith("unet.up_blocks.") and name.endswith("conv2") for name in status.patched)

    def test_exclude_wins(self, pipe):
        status = apply_geoconv(pipe, GeoConvConfig(exclude_modules=["conv_in", "conv_out"]))
        assert not any(name.endswith(("conv_in", "conv_out")) for name in status.patched)
        assert status.skipped["unet.conv_in"] == "excluded by exclude_modules"

    def test_one_tap_layers_can_be_named(self, pipe):
        status = apply_geoconv(pipe, GeoConvConfig(target_modules=["conv_shortcut"]))
        assert all(name.endswith("conv_shortcut") for name in status.patched)
        assert all(weight.shape[1:] == (4,) for weight in geoconv_parameters(pipe).values())

    def test_one_tap_layers_that_are_named_learn_every_coefficient(self, pipe):
        apply_geoconv(pipe, GeoConvConfig(target_modules=["conv_shortcut"], shift_range=0.0))
        pipe.unet.train()(torch.randn(1, 4, 8, 8), 3, torch.randn(1, 5, 16)).sample.square().mean().backward()
        assert all(weight.grad.abs().min() > 0 for weight in geoconv_parameters(pipe).values())

    @pytest.mark.parametrize(
        ("config", "word"),
        [
            ({"target_modules": ["conv_inn"]}, "'conv_inn'"),
            ({"target_modules": ["conv_in", "nowhere"]}, "'nowhere'"),
            ({"target_modules": r"decoder\..*"}, "target_modules"),
            ({"exclude_modules": ".*"}, "excluded"),
            ({"components": ("unet", "controlnet")}, "'controlnet'"),
        ],
    )
    def test_refusals_leave_the_pipeline_as_it_was(self, pipe, config, word):
        with pytest.raises(SurgeryError) as error:
            apply_geoconv(pipe, GeoConvConfig(**config))
        assert word in str(error.value)
        assert not geoconv_parameters(pipe)

    def test_an_error_in_the_second_component_leaves_the_first(self, pipe):
        with pytest.raises(SurgeryError, match="CLIPTextModel"):
            apply_geoconv(pipe, GeoConvConfig(components=("unet", "text_encoder")))
        assert not geoconv_parameters(pipe)

    @pytest.mark.parametrize("thing", [None, "unet", [1]])
    def test_not_a_model(self, thing):
        with pytest.raises(SurgeryError, match=type(thing).__name__):
            apply_geoconv(thing)

    def test_a_class_that_convolves_by_itself_is_skipped_with_the_reason(self):
        class OwnConvolution(nn.Conv2d):
            def forward(self, x):
                return torch.nn.functional.conv2d(x, self.weight, self.bias)

        model = nn.Sequential(OwnConvolution(3, 4, 3), nn.Conv2d(4, 4, 3))
        status = apply_geoconv(model)
        assert status.patched == ["1"]
        assert status.skipped["0"].startswith("OwnConvolution ")


class TestScale:
    def test_zero_is_exactly_the_base(self, pipe):
        base = denoise(pipe)
        apply_geoconv(pipe)
        draw_geometry(pipe)
        set_geoconv_scale(pipe, 0)
        assert torch.equal(denoise(pipe), base)

    def test_a_single_layer(self, pipe):
        apply_geoconv(pipe)
        assert set_geoconv_scale(pipe, 0.5, layers=["conv_in"]) == ["unet.conv_in"]
        assert (pipe.unet.conv_in.geo_scale, pipe.unet.conv_out.geo_scale) == (0.5, 1.0)

    def test_context_manager_restores_scales_after_an_error(self, pipe):
        base = denoise(pipe)
        apply_geoconv(pipe)
        draw_geometry(pipe)
        set_geoconv_scale(pipe, 0.5, layers=["conv_in"])
        output = denoise(pipe)
        with pytest.raises(KeyError), disable_geoconv(pipe):
            assert torch.equal(denoise(pipe), base)
            assert not any("geo_weight" in key for key in pipe.unet.state_dict() | pipe.unet.mid_block.state_dict())
            raise KeyError
        assert torch.equal(denoise(pipe), output)
        assert sum("geo_weight" in key for key in pipe.unet.state_dict()) == len(geoconv_parameters(pipe))

    @pytest.mark.parametrize("scale", [float("nan"), float("inf"), "1", None, True])
    def test_bad_scale(self, pipe, scale):
        apply_geoconv(pipe)
        with pytest.raises(SurgeryError, match="scale"):
            set_geoconv_scale(pipe, scale)

    def test_unpatched_model(self, pipe):
        with pytest.raises(SurgeryError, match="not patched"):
            set_geoconv_scale(pipe, 1.0)


def corners(model: nn.Module, call: Callable[[], object]) -> set[float]:
    """What the layers of stride 1 add at the corner of the image in one call: (-1 + s_y)(-1 + s_x) of the shift s.

    So it is where the base's weights are 0 and the geometry weights 1 for the product of coordinates alone.
    """
    seen, hooks = [], []
    for name in geoconv_parameters(model):
        layer = model.get_submodule(name.removesuffix(".geo_weight"))
        with torch.no_grad():
            layer.weight.zero_()
            layer.bias.zero_()
            layer.geo_weight.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]).expand_as(layer.geo_weight))
        if layer.stride == (1, 1):
            hooks.append(layer.register_forward_hook(lambda *call: seen.append(call[2][0, 0, 0, 0].item())))
    call()
    for hook in hooks:
        hook.remove()
    assert len(seen) > 5
    assert all(0.5 < corner < 1.6 for corner in seen)
    return {*seen}


class TestSharedShift:
    @pytest.mark.parametrize("scope", ["model", "layer"])
    def test_one_draw_a_model_call(self, pipe, scope):
        apply_geoconv(pipe, GeoConvConfig(shift_scope=scope))
        pipe.unet.train()
        latents, text = torch.randn(1, 4, 16, 16), torch.randn(1, 5, pipe.unet.config.cross_attention_dim)
        first, second = (corners(pipe.unet, lambda: pipe.unet(latents, 7, text)) for _ in range(2))
        assert first != second
        assert (len(first) == len(second) == 1) == (scope == "model")

    def test_parts_of_an_autoencoder_called_alone_draw_anew(self, pipe):
        apply_geoconv(pipe, GeoConvConfig(shift_scope="model", components=("vae",)))
        pipe.vae.train()
        latents = torch.randn(1, pipe.vae.config.latent_channels, 8, 8)
        first, second = (corners(pipe.vae, lambda: pipe.vae.decode(latents)) for _ in range(2))
        assert first != second
        assert len(first) == len(second) == 1
