"""The options of all training programs together: what each says of itself, and one name for one thing."""

from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path

import pytest

from geopos_diffusers.command_line import kebab
from geopos_diffusers.errors import ConfigError
from geopos_diffusers.finetuning import kinds
from geopos_diffusers.finetuning.text_to_image_arguments import TextToImageArguments
from geopos_diffusers.training.arguments import (
    build_parser,
    check_arguments,
    find_config,
    fixed_settings,
    option,
    parse_arguments,
    read_config,
    read_yaml,
    shown_name,
)

CONFIGS = Path(__file__).parents[2] / "configs"
PROGRAMS = {
    "center_of_mass": "center_of_mass.run:CenterOfMassArguments",
    "positional_bias": "positional_bias.run:PositionalBiasArguments",
    "depth": "depth.run:DepthArguments",
    "diffusion": "diffusion.run:DiffusionArguments",
    "vae": "vae.run:VaeArguments",
    "gan": "gan.arguments:GanArguments",
    "pretraining": "pretraining.arguments:PretrainingArguments",
    "hand_judge": "hand_judge.run:JudgeArguments",
}
KINDS = [
    f"finetune_{kind}" for kind in kinds.ARGUMENTS if kind != kinds.DEFAULT
]  # before finetune, which is the default


def arguments_class(program: str) -> type:
    if program == "finetune":
        return TextToImageArguments
    if program in KINDS:
        return kinds.arguments_class(program.removeprefix("finetune_"))
    module, _, name = PROGRAMS[program].partition(":")
    return getattr(import_module(f"experiments.{module}"), name)


@pytest.mark.parametrize("program", [*KINDS, "finetune", *PROGRAMS])
def test_every_option_says_whether_a_resumed_run_may_change_it(program):
    rules = {known.name: known.metadata.get("resume") for known in fields(arguments_class(program))}
    assert rules.keys() == rules.keys() & {name for name, rule in rules.items() if rule in ("fixed", "free")}


def test_an_option_without_the_rule_is_a_programming_error():
    with pytest.raises(TypeError, match="resume"):
        option(1, "a number")
    with pytest.raises(TypeError, match="resume must be 'fixed' or 'free'; got 'maybe'"):
        option(1, "a number", resume="maybe")


def test_fixed_settings_are_those_that_say_so():
    @dataclass
    class Some:
        seed: int = option(0, "", resume="fixed")
        steps: int = option(1, "", resume="free")
        width: int = option(2, "", resume="fixed", group="network")

    assert fixed_settings(Some()) == {"seed": 0, "width": 2}
    assert fixed_settings(Some(), without_groups=("network",)) == {"seed": 0}


@pytest.mark.parametrize("program", ["finetune", *PROGRAMS])
def test_no_name_means_two_options(program):
    names = [
        name
        for known in fields(arguments_class(program))
        for name in {shown_name(known), known.name, *known.metadata["aliases"]}
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "path",
    sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "accelerate"),
    ids=lambda path: path.stem,
)
def test_configs_use_the_names_that_help_shows(path):
    program = next((name for name in (*KINDS, "finetune", *PROGRAMS) if path.stem.startswith(name)), None)
    assert program is not None, f"{path.stem} begins with the name of no program"
    chosen = arguments_class(program)
    assert set(read_yaml(path)) <= {shown_name(known) for known in fields(chosen)}
    assert read_config(path, chosen)


def test_shared_options_have_one_name():
    """The output folder, the data, the side of images, the length of a training and the like, in all programs."""
    shared = {"--output", "--overwrite", "--report-to", "--size"}
    for program in ("finetune", *PROGRAMS):
        parser = build_parser(arguments_class(program))
        own = shared - {"--size"} if program == "hand_judge" else shared  # its network has one size
        assert all(parser.knows(name) for name in own)
        assert kebab("output_dir") not in parser.format_help()


def test_values_of_a_file_are_read_under_every_name(tmp_path):
    (tmp_path / "c.yaml").write_text("output-dir: o\ntrain_data: d\nnum_train_epochs: 3\nbeta1: 0.25\n")
    args = parse_arguments(arguments_class("gan"), ["--config", str(tmp_path / "c.yaml"), "--adam-beta1", "0.75"])
    assert (args.output_dir, args.train_data, args.epochs, args.beta1) == ("o", "d", 3, 0.75)


def test_a_value_out_of_range_is_named_as_the_option_is(tmp_path):
    with pytest.raises(ConfigError, match=r"^num_train_epochs must be a whole number >= 1; got 0$"):
        parse_arguments(arguments_class("gan"), ["--dataset", "d", "--output", "o", "--num-train-epochs", "0"])


def test_help_is_that_of_the_flag_whatever_a_file_says(tmp_path):
    """A flag that a file turns on is not shown as its negative."""
    (tmp_path / "c.yaml").write_text("use_ema: true\n")
    given = read_config(tmp_path / "c.yaml", TextToImageArguments)
    parser = build_parser(TextToImageArguments, given)
    parser.show_advanced()
    assert "  --use-ema " in parser.format_help()
    words = ["--dataset", "d", "--output", "o", "--max-train-steps", "1"]
    assert parser.parse_args(words).use_ema
    assert not parser.parse_args([*words, "--no-use-ema"]).use_ema


def test_a_list_may_be_empty_where_it_is_by_default():
    @dataclass
    class Some:
        rates: list[float] = option([], "", resume="free", above=0)
        widths: list[int] = option([8], "", resume="free")

        def __post_init__(self):
            check_arguments(self)

    assert Some().rates == []
    assert Some(rates=2).rates == [2]
    with pytest.raises(ConfigError, match=r"rates must be a list of numbers > 0; got \[0\]"):
        Some(rates=[0])
    with pytest.raises(ConfigError, match=r"widths must be a list of whole numbers; got \[\]"):
        Some(widths=[])


def test_programs_without_common_options_show_all_of_them():
    shown = build_parser(arguments_class("gan")).format_help()
    assert all(f"  {kebab(shown_name(known))}" in shown for known in fields(arguments_class("gan")))
    assert "--help-all" not in shown


def test_a_path_wins_over_the_name_of_a_packaged_config(tmp_path, monkeypatch):
    assert find_config("finetune_hands") == find_config("finetune_hands.yaml") == CONFIGS / "finetune_hands.yaml"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "finetune_hands").write_text("seed: 1\n")
    assert read_yaml(find_config("finetune_hands")) == {"seed": 1}
    with pytest.raises(ConfigError, match=r"no config file finetune_hand; packaged are .*did you mean finetune_hands"):
        find_config("finetune_hand")
    with pytest.raises(ConfigError, match="no config file elsewhere/finetune_hands; packaged are"):
        find_config("elsewhere/finetune_hands")
