import re
import subprocess
import sys
from dataclasses import fields

import pytest

from geopos_diffusers.cli.main import main
from geopos_diffusers.cli.train import split_options
from geopos_diffusers.command_line import kebab
from geopos_diffusers.finetuning.text_to_image_arguments import TextToImageArguments
from geopos_diffusers.training.arguments import shown_name


@pytest.mark.parametrize(
    ("line", "launcher", "script"),
    [
        ("--config c.yaml --use_ema", "", "--config c.yaml --use_ema"),
        ("--num_processes 2 --cpu --config c.yaml", "--num_processes 2 --cpu", "--config c.yaml"),
        ("--dataset d --num_processes=2 --train lora", "--num_processes=2", "--dataset d --train lora"),
        ("--output-dir o --multi_gpu --learning_rate=1", "--multi_gpu", "--output-dir o --learning_rate=1"),
        ("--mixed_precision bf16 --main_process_port 0", "--main_process_port 0", "--mixed_precision bf16"),
        ("--validation_prompts a b --lerning_rate 3", "", "--validation_prompts a b --lerning_rate 3"),
        (
            "--no-use-ema --num_machines 1 --max-train-samples 4",
            "--num_machines 1",
            "--no-use-ema --max-train-samples 4",
        ),
    ],
)
def test_options_of_the_launcher_are_told_apart(line, launcher, script):
    assert split_options(line.split(), TextToImageArguments) == (launcher.split(), script.split())


def help_text(capsys, option: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["train", option])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_help_is_short_and_grouped(capsys):
    shown = help_text(capsys, "--help")
    assert shown.startswith("usage: geopos train text-to-image")
    assert len(shown.splitlines()) < 55
    assert "\nwhat is trained:\n" in shown
    assert all(option in shown for option in ("--dataset", "--output ", "--max-train-steps", "--help-all"))
    assert "--gradient-accumulation-steps" not in shown


def test_help_comes_before_anything_slow_is_imported():
    code = "import sys; from geopos_diffusers.cli.main import main\ntry: main(['train', '--help'])\n"
    code += "except SystemExit: print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_all_help_shows_every_option_in_one_spelling(capsys):
    shown = help_text(capsys, "--help-all")
    for known in fields(TextToImageArguments):
        name = shown_name(known)
        assert f"  {kebab(name)}" in shown
        assert name == known.name or f"  {kebab(known.name)}" not in shown
    assert not re.search(r"--\w*_|--no-", shown)


@pytest.mark.parametrize("launcher", [[], ["--num_processes", "2", "--cpu"]])
def test_bad_options_end_with_one_line(capsys, launcher):
    words = ["train", *launcher, "--dataset", "d", "--output_dir", "o", "--max_train_steps", "1", "--train", "x"]
    assert main(words) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("geopos train: error: train must be one or more of")


@pytest.mark.parametrize(
    ("word", "meant"),
    [("--lerning_rate", "--learning-rate"), ("--output-dirr", "--output"), ("--no-overwrit", "--no-overwrite")],
)
def test_unknown_options_are_answered_with_the_nearest(capsys, word, meant):
    with pytest.raises(SystemExit) as end:
        main(["train", word, "1"])
    assert end.value.code == 2
    name = word.partition("=")[0]
    assert f"unknown option {name}; did you mean {meant}?" in capsys.readouterr().err
