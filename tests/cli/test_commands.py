"""The command line as a user runs it: in one process for speed, with real files and a tiny real pipeline on disk."""

import json
import subprocess
import sys

import pytest
import torch
from commands import generate, refused
from PIL import Image
from tiny_models import tiny_stable_diffusion
from trained_models import trained_stable_diffusion

from geopos_diffusers import apply_geoconv
from geopos_diffusers.adapters.files import WEIGHTS_NAME
from geopos_diffusers.cli.main import COMMANDS, main


class TestHelp:
    def test_lists_every_command_without_importing_torch(self):
        code = (
            "import sys; from geopos_diffusers.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        )
        code += "print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert all(f"    {command}" in result.stdout for command in COMMANDS)
        assert result.stdout.splitlines()[-1] == "[]"

    @pytest.mark.parametrize("command", COMMANDS)
    def test_each_command(self, command, capsys):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
        assert f"usage: geopos {command}" in capsys.readouterr().out

    def test_no_command(self, capsys):
        with pytest.raises(SystemExit) as stop:
            main([])
        assert stop.value.code == 2

    def test_version(self, capsys):
        assert main(["--version"]) == 0
        assert f"torch {torch.__version__.partition('+')[0]}" in capsys.readouterr().out


class TestInfoAndPatch:
    def test_info_says_what_would_be_patched(self, model, capsys):
        assert main(["info", "--model", model, "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
        pipe = tiny_stable_diffusion()
        assert record["patched"] == apply_geoconv(pipe).patched

    def test_info_prints_the_page_of_the_proposal(self, model, capsys):
        assert main(["info", "--model", model]) == 0
        out = capsys.readouterr().out
        assert "would be patched" in out
        assert "patched in unet: conv_in, down_blocks (" in out
        assert "skipped: " in out
        assert "adapters" not in out

    def test_info_on_an_adapter(self, model, adapter, capsys):
        assert main(["info", "--model", model, "--geoconv", adapter, "--verbose"]) == 0
        out = capsys.readouterr().out
        assert "convolutions patched" in out
        assert "adapters of unet: default 1" in out
        assert "  + unet.conv_in" in out
        assert "attentions.0.proj_in: not named by target_modules" in out

    def test_info_on_the_folder_of_a_patched_pipeline(self, tmp_path, capsys):
        pipe = trained_stable_diffusion()
        pipe.save_pretrained(tmp_path / "patched")
        assert main(["info", "--model", str(tmp_path / "patched"), "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
        assert set(record["scales"].values()) == {1.0}
        assert record["adapters"] == {"unet": {"default": 1.0}}

    def test_patch_is_a_dry_run_without_output(self, model, capsys):
        assert main(["patch", "--model", model, "--target-modules", "conv1", "--encoding", "squares"]) == 0
        assert "would be patched" in capsys.readouterr().out

    @pytest.mark.parametrize("options", [["--basis", "taps", "--border", "extrapolate"], ["--basis", "multilinear"]])
    def test_patch_takes_the_basis(self, model, options, capsys):
        assert main(["patch", "--model", model, "--json", *options]) == 0
        config = json.loads(capsys.readouterr().out)["config"]
        assert (config["basis"], config["border"]) == (options[1], options[3] if len(options) > 2 else None)

    def test_patch_refuses_a_basis_that_the_encoding_lacks(self, model, tmp_path, capsys):
        options = ["--encoding", "squares", "--basis", "multilinear", "--output", str(tmp_path / "adapter")]
        assert "encoding 'squares' has no multilinear basis" in refused(capsys, "patch", "--model", model, *options)
        assert not (tmp_path / "adapter").exists()

    def test_a_full_disk_is_one_line(self, model, small_disk, capsys):
        parts = ("--components", "unet", "vae")  # more than fits
        line = refused(capsys, "patch", "--model", model, *parts, "--output", str(small_disk / "adapter"))
        assert "geoconv_weights.safetensors cannot be written: " in line

    def test_patch_writes_an_adapter_that_changes_nothing(self, model, tmp_path, capsys):
        assert main(["patch", "--model", model, "--output", str(tmp_path / "adapter")]) == 0
        assert (tmp_path / "adapter" / WEIGHTS_NAME).is_file()
        assert generate(model, tmp_path / "a", "--prompt", "a hand") == 0
        assert generate(model, tmp_path / "b", "--prompt", "a hand", "--geoconv", str(tmp_path / "adapter")) == 0
        pixels = [Image.open(tmp_path / name / "00000.png").tobytes() for name in "ab"]
        assert pixels[0] == pixels[1]

    def test_unknown_layer(self, model, capsys):
        line = refused(capsys, "patch", "--model", model, "--target-modules", "conv_inn")
        assert "target_modules 'conv_inn' names no convolution" in line


class TestGenerate:
    def test_same_seed_same_bytes(self, model, adapter, tmp_path):
        for name in ("a", "b"):
            assert (
                generate(model, tmp_path / name, "--prompt", "a hand", "--num-images", "3", "--geoconv", adapter) == 0
            )
        files = sorted(path.name for path in (tmp_path / "a").iterdir())
        assert files == ["00000.png", "00001.png", "00002.png", "contact_sheet.png", "metadata.jsonl", "settings.json"]
        assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)

    def test_an_image_depends_on_its_seed_alone(self, model, tmp_path):
        assert generate(model, tmp_path / "all", "--prompt", "a hand", "--num-images", "2", "--batch-size", "1") == 0
        assert generate(model, tmp_path / "one", "--prompt", "a hand", "--seed", "4") == 0
        assert (
            Image.open(tmp_path / "all" / "00001.png").tobytes() == Image.open(tmp_path / "one" / "00000.png").tobytes()
        )

    def test_settings_are_in_the_image(self, model, adapter, tmp_path):
        generate(model, tmp_path / "a", "--prompt", "eine Hand, ±", "--geoconv", adapter, "--geoconv-scale", "0.5")
        text = Image.open(tmp_path / "a" / "00000.png").text
        settings = json.loads(text["geopos"])
        assert text["prompt"] == "eine Hand, ±"
        assert (settings["seed"], settings["steps"], settings["geoconv_scale"]) == (3, 2, [0.5])

    def test_compare_draws_the_base_from_the_same_noise(self, model, adapter, tmp_path):
        assert generate(model, tmp_path / "base", "--prompt", "a hand") == 0
        assert generate(model, tmp_path / "both", "--prompt", "a hand", "--geoconv", adapter, "--compare") == 0
        base = Image.open(tmp_path / "base" / "00000.png").tobytes()
        assert Image.open(tmp_path / "both" / "base" / "00000.png").tobytes() == base
        assert Image.open(tmp_path / "both" / "00000.png").tobytes() != base

    def test_prompts_go_round(self, model, tmp_path):
        (tmp_path / "prompts.txt").write_text("a fist\n\nan open hand\n")
        assert (
            generate(model, tmp_path / "a", "--prompts-file", str(tmp_path / "prompts.txt"), "--num-images", "3") == 0
        )
        rows = [json.loads(line) for line in (tmp_path / "a" / "metadata.jsonl").read_text().splitlines()]
        assert [row["text"] for row in rows] == ["a fist", "an open hand", "a fist"]
        assert [row["seed"] for row in rows] == [3, 4, 5]

    def test_lora_beside_geoconv(self, model, adapter, tmp_path):
        from diffusers import StableDiffusionPipeline
        from diffusers.utils import convert_state_dict_to_diffusers
        from peft import LoraConfig, get_peft_model_state_dict

        pipe = tiny_stable_diffusion()
        pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "conv1"], init_lora_weights=False))
        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipe.unet))
        StableDiffusionPipeline.save_lora_weights(tmp_path / "lora", unet_lora_layers=layers)
        lora = ["--lora", str(tmp_path / "lora")]
        assert generate(model, tmp_path / "geo", "--prompt", "a hand", "--geoconv", adapter) == 0
        assert generate(model, tmp_path / "both", "--prompt", "a hand", "--geoconv", adapter, *lora, "--compare") == 0
        assert generate(model, tmp_path / "base", "--prompt", "a hand") == 0
        pixels = {
            name: Image.open(tmp_path / name / "00000.png").tobytes() for name in ("geo", "both", "base", "both/base")
        }
        assert pixels["both/base"] == pixels["base"]
        assert len(set(pixels.values())) == 3

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "no prompt"),
            (["--prompt", "  "], "no prompt"),
            (["--prompts-file", "missing.txt"], "no prompts file missing.txt"),
            (["--prompt", "a", "--num-images", "0"], "--num-images must be 1 or more; got 0"),
            (["--prompt", "a", "--seed", "-1"], "--seed must be between"),
            (["--prompt", "a", "--device", "nowhere"], "cannot use device 'nowhere'"),
            (["--prompt", "a", "--geoconv", "missing"], "no adapter at missing"),
            (["--prompt", "a", "--lora", "missing"], "cannot load LoRA 'missing'"),
        ],
    )
    def test_bad_input_is_one_line_and_writes_nothing(self, model, tmp_path, capsys, arguments, message):
        line = refused(capsys, "generate", "--model", model, "--output", str(tmp_path / "out"), *arguments)
        assert message in line
        assert not (tmp_path / "out").exists()
        assert list(tmp_path.iterdir()) == []

    def test_missing_model(self, tmp_path, capsys):
        line = refused(capsys, "generate", "--model", "./nowhere", "--prompt", "a", "--output", str(tmp_path / "out"))
        assert "no pipeline './nowhere'" in line

    def test_output_that_exists_is_kept(self, model, tmp_path, capsys):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("mine")
        line = refused(capsys, "generate", "--model", model, "--prompt", "a", "--output", str(tmp_path / "out"))
        assert "is not empty; choose another or add --overwrite" in line
        assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
