"""An adapter's base: recorded when it is saved, compared when it is loaded."""

import json
import logging
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionPipeline
from safetensors.torch import save_file
from tiny_models import tiny_stable_diffusion, tiny_stable_diffusion_3, tiny_stable_diffusion_xl
from torch import nn
from trained_models import draw_geometry, trained_stable_diffusion

from geopos_diffusers import (
    GeoConvConfig,
    apply_geoconv,
    geoconv_parameters,
    load_geoconv_weights,
    save_geoconv_weights,
)
from geopos_diffusers.adapters.base_model import base_name, fingerprint
from geopos_diffusers.adapters.files import read_adapter
from geopos_diffusers.errors import AdapterError

CONV_IN = GeoConvConfig(target_modules=["conv_in"])


@pytest.fixture
def sdxl_adapter(tmp_path) -> Path:
    """An adapter of SDXL whose layers fit Stable Diffusion too."""
    pipe = tiny_stable_diffusion_xl()
    apply_geoconv(pipe)
    draw_geometry(pipe)
    return save_geoconv_weights(pipe, tmp_path / "sdxl")


def warnings_of(caplog) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


class TestRecord:
    def test_name_class_and_fingerprint(self, tmp_path):
        tiny_stable_diffusion().save_pretrained(tmp_path / "my-base")
        pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "my-base")
        apply_geoconv(pipe, GeoConvConfig(components=("unet", "vae")))
        values = read_adapter(save_geoconv_weights(pipe, tmp_path / "adapter"))[1]
        assert values["base_models"] == {"unet": "my-base", "vae": "my-base"}
        assert values["base_classes"] == {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
        assert values["base_fingerprints"] == {part: fingerprint(getattr(pipe, part)) for part in ("unet", "vae")}

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("owner/name", "owner/name"),
            ("/home/me/.cache/huggingface/hub/models--owner--some-name/snapshots/0a1b/unet", "owner/some-name"),
            ("/home/me/models/mine", "mine"),
            ("", None),
            (None, None),
        ],
    )
    def test_no_path_of_the_machine_is_told(self, path, expected):
        unet = tiny_stable_diffusion().unet
        unet.register_to_config(_name_or_path=path)
        assert base_name(unet, unet) == expected

    def test_the_fingerprint_stays_when_the_model_is_patched_trained_or_given_a_lora(self):
        lora = pytest.importorskip("peft")
        unet = tiny_stable_diffusion().unet
        before = fingerprint(unet)
        apply_geoconv(unet)
        draw_geometry(unet)
        unet.add_adapter(lora.LoraConfig(r=2, target_modules=["to_q", "conv1"]))
        with torch.no_grad():
            unet.conv_in.weight.add_(1.0)
        assert fingerprint(unet) == before
        assert fingerprint(tiny_stable_diffusion_xl().unet) != before

    def test_the_fingerprint_stays_when_projections_are_fused_or_an_image_prompt_is_added(self):
        unet, transformer = tiny_stable_diffusion().unet, tiny_stable_diffusion_3().transformer
        before = fingerprint(unet), fingerprint(transformer)
        unet.fuse_qkv_projections()
        transformer.fuse_qkv_projections()
        transformer.image_proj = nn.Sequential(nn.Linear(4, 4))
        assert (fingerprint(unet), fingerprint(transformer)) == before


class TestLoading:
    def test_the_same_base_says_nothing(self, tmp_path, caplog):
        path = save_geoconv_weights(trained_stable_diffusion(), tmp_path)
        load_geoconv_weights(tiny_stable_diffusion(seed=1), path)
        assert not warnings_of(caplog)

    def test_other_layers_in_the_same_class_are_warned_of(self, sdxl_adapter, caplog):
        load_geoconv_weights(tiny_stable_diffusion(), sdxl_adapter)
        (message,) = warnings_of(caplog)
        assert "UNet2DConditionModel" in message
        assert "check_base=False" in message

    def test_the_warning_can_be_silenced(self, sdxl_adapter, caplog):
        load_geoconv_weights(tiny_stable_diffusion(), sdxl_adapter, check_base=False)
        assert not warnings_of(caplog)

    def test_another_class_is_refused_unless_told_otherwise(self, tmp_path):
        pipe = tiny_stable_diffusion()
        apply_geoconv(pipe, CONV_IN)
        path = save_geoconv_weights(pipe, tmp_path)
        other = ControlNetModel.from_unet(tiny_stable_diffusion().unet, conditioning_embedding_out_channels=(4, 8))
        with pytest.raises(AdapterError, match="UNet2DConditionModel, not of ControlNetModel"):
            load_geoconv_weights(other, path)
        assert not geoconv_parameters(other)
        load_geoconv_weights(other, path, check_base=False)
        assert [*geoconv_parameters(other)] == ["conv_in.geo_weight"]

    def test_a_derived_class_is_the_same(self, tmp_path):
        class Derived(nn.Conv2d):
            pass

        class Base(nn.Sequential):
            pass

        class Child(Base):
            pass

        model = Base(nn.Conv2d(1, 1, 3))
        apply_geoconv(model)
        path = save_geoconv_weights(model, tmp_path)
        assert load_geoconv_weights(Child(Derived(1, 1, 3)), path).patched == ["0"]

    @pytest.mark.parametrize("change", [lambda v: [v.pop(k) for k in [*v] if k.startswith("base_")], None])
    def test_files_that_say_nothing_or_nonsense_of_their_base_load(self, sdxl_adapter, change, caplog):
        tensors, values = read_adapter(sdxl_adapter)
        if change:
            change(values)
        else:
            values |= {"base_models": 3, "base_classes": {"unet": None}, "base_fingerprints": {"unet": [1]}}
        save_file(tensors, sdxl_adapter, metadata={"geoconv_config": json.dumps(values)})
        assert load_geoconv_weights(tiny_stable_diffusion(), sdxl_adapter).patched
        assert not warnings_of(caplog)

    def test_components_patched_differently_make_no_adapter(self, tmp_path):
        pipe = tiny_stable_diffusion()
        apply_geoconv(pipe.unet)
        apply_geoconv(pipe.vae, GeoConvConfig(encoding="cartesian"))
        with pytest.raises(AdapterError, match="differ"):
            save_geoconv_weights(pipe, tmp_path)
