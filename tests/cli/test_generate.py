"""`geopos generate`: several adapters, and what it refuses, asks or warns of before it generates."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import generate, refused
from PIL import Image
from tiny_models import tiny_stable_diffusion

from geopos_diffusers import apply_geoconv, geoconv_parameters, load_geoconv_weights, save_geoconv_weights
from geopos_diffusers.cli.adapter_options import adapter_names
from geopos_diffusers.cli.main import main

PROMPT = ("--prompt", "a hand")


def pixels(folder: Path) -> np.ndarray:
    return np.asarray(Image.open(folder / "00000.png")).astype(int)


@pytest.fixture(scope="module")
def loras(tmp_path_factory) -> list[str]:
    """Two LoRAs in folders of one name, as two runs write them."""
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig, get_peft_model_state_dict

    folders = []
    for seed in range(2):
        pipe = tiny_stable_diffusion()
        torch.manual_seed(seed)
        pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipe.unet))
        folder = tmp_path_factory.mktemp("lora") / "final"
        StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
        folders.append(str(folder))
    return folders


class TestSeveralAdapters:
    def test_are_added_with_their_scales(self, model, adapter, other_adapter, tmp_path):
        weights = []
        for path in (adapter, other_adapter):
            pipe = tiny_stable_diffusion()
            load_geoconv_weights(pipe, path)
            weights.append({name: weight.detach().clone() for name, weight in geoconv_parameters(pipe).items()})
        pipe = tiny_stable_diffusion()
        apply_geoconv(pipe)
        with torch.no_grad():
            for name, weight in geoconv_parameters(pipe).items():
                weight.copy_(0.5 * weights[0][name] - 0.25 * weights[1][name])
        save_geoconv_weights(pipe, tmp_path / "sum")
        both = ["--geoconv", adapter, "--geoconv", other_adapter, "--geoconv-scale", "0.5", "--geoconv-scale=-0.25"]
        assert generate(model, tmp_path / "a", *PROMPT, *both) == 0
        assert generate(model, tmp_path / "b", *PROMPT, "--geoconv", str(tmp_path / "sum")) == 0
        assert np.abs(pixels(tmp_path / "a") - pixels(tmp_path / "b")).max() <= 1
        settings = json.loads((tmp_path / "a" / "settings.json").read_text())
        assert settings["geoconv"] == [adapter, other_adapter]
        assert settings["geoconv_scale"] == [0.5, -0.25]

    def test_one_scale_is_for_all(self, model, adapter, other_adapter, tmp_path):
        both = ["--geoconv", adapter, other_adapter, "--geoconv-scale"]
        assert generate(model, tmp_path / "one", *PROMPT, *both, "0.5") == 0
        assert generate(model, tmp_path / "each", *PROMPT, *both, "0.5", "0.5") == 0
        assert generate(model, tmp_path / "whole", *PROMPT, *both, "1") == 0
        assert (pixels(tmp_path / "one") == pixels(tmp_path / "each")).all()
        assert (pixels(tmp_path / "one") != pixels(tmp_path / "whole")).any()

    def test_loras(self, model, loras, tmp_path):
        cases = {
            "first": loras[:1],
            "second": loras[1:],
            "both": loras,
            "half": [*loras, "--lora-scale", "0.5"],
            "second by scale": [*loras, "--lora-scale", "0", "1"],
        }
        results = {}
        for name, options in cases.items():
            assert generate(model, tmp_path / name, *PROMPT, "--lora", *options) == 0
            results[name] = pixels(tmp_path / name)
        assert np.abs(results["second by scale"] - results["second"]).max() <= 1
        kinds = ("first", "second", "both", "half")
        assert len({results[name].tobytes() for name in kinds}) == len(kinds)

    def test_base_of_several(self, model, adapter, other_adapter, loras, tmp_path):
        options = ["--geoconv", adapter, other_adapter, "--lora", *loras, "--compare"]
        assert generate(model, tmp_path / "both", *PROMPT, *options) == 0
        assert generate(model, tmp_path / "base", *PROMPT) == 0
        assert (pixels(tmp_path / "both" / "base") == pixels(tmp_path / "base")).all()

    @pytest.mark.parametrize(
        ("paths", "names"),
        [
            (["runs/a", "b.safetensors"], ["a", "b"]),
            (["runs/a/final", "runs/b/final"], ["final_1", "final_2"]),
            (["owner/my-lora.v2", "."], ["my_lora_v2", "adapter"]),
        ],
    )
    def test_names(self, paths, names):
        assert adapter_names(paths) == names


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--compare"], "--compare needs --geoconv or --lora"),
            (["--geoconv-scale", "2"], "--geoconv-scale needs --geoconv"),
            (["--lora-scale", "2"], "--lora-scale needs --lora"),
            (["--geoconv", "a", "b", "--geoconv-scale", "1", "2", "3"], "or 2 for the adapters; got 3"),
            (["--geoconv", "a", "--geoconv-scale", "nan"], "takes finite numbers; got nan"),
        ],
    )
    def test_of_adapters(self, model, tmp_path, capsys, options, message):
        line = refused(capsys, "generate", "--model", model, *PROMPT, "--output", str(tmp_path / "out"), *options)
        assert message in line
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("scale", ["nan", "inf", "-inf"])
    def test_of_guidance_scales(self, tmp_path, capsys, scale):
        """Before the model is looked for."""
        options = ["--model", "nowhere", "--output", str(tmp_path / "out"), f"--guidance-scale={scale}"]
        line = refused(capsys, "generate", *PROMPT, *options)
        assert f"--guidance-scale must be a finite number; got {scale}" in line

    @pytest.mark.parametrize(
        ("pipeline", "message"),
        [
            ("DDPMPipeline", "DDPMPipeline takes no prompt"),
            ("StableDiffusionImg2ImgPipeline", "needs image beside the prompt"),
            ("StableDiffusionControlNetPipeline", "needs image beside the prompt"),
            ("AudioLDMPipeline", "makes sound"),
            ("AnimateDiffPipeline", "makes videos"),
        ],
    )
    def test_of_pipelines_that_it_cannot_drive(self, tmp_path, capsys, pipeline, message):
        """The folder holds no weights: the name in model_index.json is enough."""
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
        options = ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "out")]
        assert message in refused(capsys, "generate", *PROMPT, *options)
        assert not (tmp_path / "out").exists()

    def test_the_working_folder_is_not_replaced(self, model, tmp_path, capsys, monkeypatch):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("mine")
        monkeypatch.chdir(tmp_path / "out")
        line = refused(capsys, "generate", "--model", model, *PROMPT, "--output", str(tmp_path), "--overwrite")
        assert "holds the working or the home folder" in line
        assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


class Terminal(io.StringIO):
    """Standard input of somebody who types."""

    def isatty(self) -> bool:
        return True


class TestSizes:
    """The tiny model is made for 32 pixels."""

    def test_of_the_model_say_nothing(self, model, tmp_path, capsys):
        assert generate(model, tmp_path / "out", *PROMPT, "--height", "64", "--width", "32") == 0
        assert "pixels" not in capsys.readouterr().err

    @pytest.mark.parametrize(("option", "size"), [("--width", (64, 32)), ("--height", (32, 64))])
    def test_one_side_alone_counts(self, model, tmp_path, option, size):
        """diffusers' pipelines ignore one without the other."""
        assert generate(model, tmp_path / "out", *PROMPT, option, "64") == 0
        assert Image.open(tmp_path / "out" / "00000.png").size == size

    def test_far_beyond_it_warn(self, model, tmp_path, capsys):
        assert generate(model, tmp_path / "out", *PROMPT, "--height", "72", "--width", "32") == 0
        line = "warning: 72x32 pixels is 2.2 times the 32x32 that the model is made for"
        assert line in capsys.readouterr().err

    def test_without_a_terminal_absurd_ones_need_yes(self, model, tmp_path, capsys):
        options = ["--model", model, *PROMPT, "--steps", "1", "--height", "264", "--width", "8"]
        options += ["--output", str(tmp_path / "out")]
        assert "that the model is made for; add --yes" in refused(capsys, "generate", *options)
        assert not (tmp_path / "out").exists()
        assert main(["generate", *options, "--yes"]) == 0
        assert Image.open(tmp_path / "out" / "00000.png").size == (8, 264)

    @pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2), ("", 2)])
    def test_on_a_terminal_they_are_asked_for(self, model, tmp_path, monkeypatch, capsys, answer, code):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        assert generate(model, tmp_path / "out", *PROMPT, "--height", "264", "--width", "8") == code
        assert "Go on? [y/N]" in capsys.readouterr().err
        assert (tmp_path / "out").exists() == (code == 0)

    def test_memory(self, model, tmp_path, capsys):
        options = ["--model", model, *PROMPT, "--height", "8192", "--width", "8192", "--output", str(tmp_path / "out")]
        assert "may need more memory than there is; add --yes" in refused(capsys, "generate", *options)


class TestWarnings:
    def test_unreadable_words_of_the_packaged_model(self, tmp_path, caplog):
        prompts = ["--prompt", "a left hand signing", "--prompt", "一只手", "--negative-prompt", "blurry"]
        assert main(["generate", *prompts, "--steps", "1", "--output", str(tmp_path / "out")]) == 0
        lines = [record.getMessage() for record in caplog.records if "vocabulary" in record.getMessage()]
        assert lines == ["the model's vocabulary has no signing, 一只手, blurry; such words hardly change the image"]

    def test_readable_prompts_of_the_packaged_model(self, tmp_path, caplog):
        prompt = "the back of a left hand, five fingers raised"
        assert main(["generate", "--prompt", prompt, "--steps", "1", "--output", str(tmp_path / "out")]) == 0
        assert "vocabulary" not in caplog.text

    def test_an_adapter_within_the_model_is_not_passed_over_in_silence(self, adapter, tmp_path, capsys):
        pipe = tiny_stable_diffusion()
        load_geoconv_weights(pipe, adapter)
        pipe.save_pretrained(tmp_path / "patched")
        folder = str(tmp_path / "patched")
        assert generate(folder, tmp_path / "a", *PROMPT) == 0
        assert f"add --geoconv {folder}" in capsys.readouterr().err
        assert generate(folder, tmp_path / "b", *PROMPT, "--geoconv", folder) == 0
        assert "is left out" not in capsys.readouterr().err
        assert (pixels(tmp_path / "a") != pixels(tmp_path / "b")).any()
