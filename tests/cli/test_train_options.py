import pytest

from geopos_diffusers.cli.main import main
from geopos_diffusers.cli.train import split_options


@pytest.mark.parametrize(
    ("line", "launcher", "script"),
    [
        ("--config c.yaml --use_ema", "", "--config c.yaml --use_ema"),
        ("--num_processes 2 --cpu --config c.yaml", "--num_processes 2 --cpu", "--config c.yaml"),
        ("--dataset d --num_processes=2 --train lora", "--num_processes=2", "--dataset d --train lora"),
        ("--output-dir o --multi_gpu --learning_rate=1", "--multi_gpu", "--output-dir o --learning_rate=1"),
        ("--mixed_precision bf16 --main_process_port 0", "--main_process_port 0", "--mixed_precision bf16"),
        ("--validation_prompts a b --lerning_rate 3", "", "--validation_prompts a b --lerning_rate 3"),
    ],
)
def test_options_of_the_launcher_are_told_apart(line, launcher, script):
    assert split_options(line.split()) == (launcher.split(), script.split())


def test_help_is_the_script_s(capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", "--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0
    assert shown.startswith("usage: geopos train")
    assert "--gradient_accumulation_steps" in shown


@pytest.mark.parametrize("launcher", [[], ["--num_processes", "2", "--cpu"]])
def test_bad_options_end_with_one_line(capsys, launcher):
    words = ["train", *launcher, "--dataset", "d", "--output_dir", "o", "--max_train_steps", "1", "--train", "x"]
    assert main(words) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("geopos train: error: train must be one or more of")


def test_unknown_options_are_named(capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", "--dataset", "d", "--output_dir", "o", "--lerning_rate", "1"])
    assert end.value.code == 2
    assert "unrecognized arguments: --lerning_rate 1" in capsys.readouterr().err
