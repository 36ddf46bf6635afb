"""Saving patched pipelines whole, and loading them in a new process."""

import copy
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderOobleck,
    ControlNetModel,
    MultiControlNetModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file
from tiny_models import tiny_stable_diffusion
from trained_models import denoise, draw_geometry, trained_stable_diffusion

from geopos_diffusers import (
    GeoConv2d,
    GeoConvConfig,
    apply_geoconv,
    geoconv_parameters,
    load_geoconv_weights,
    remove_geoconv,
    save_geoconv_weights,
)
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

    def test_one_of_several_controlnets_that_was_patched_by_itself(self, tmp_path):
        def pipeline() -> types.SimpleNamespace:
            unet = tiny_stable_diffusion().unet
            nets = [ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8)) for _ in range(2)]
            several = MultiControlNetModel(nets)
            return types.SimpleNamespace(controlnet=several, components={"unet": unet, "controlnet": several})

        pipe = pipeline()
        apply_geoconv(pipe.controlnet.nets[1])
        draw_geometry(pipe.controlnet.nets[1])
        pipe.controlnet.save_pretrained(str(tmp_path / "controlnet"))
        reloaded = pipeline()
        load_geoconv_weights(reloaded, tmp_path)
        weights = geoconv_parameters(pipe.controlnet.nets[1])
        assert not geoconv_parameters(reloaded.controlnet.nets[0])
        loaded = geoconv_parameters(reloaded.controlnet.nets[1])
        assert loaded.keys() == weights.keys()
        assert all(torch.equal(loaded[name], weights[name]) for name in weights)

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
