import pytest

from geopos_diffusers.cli.main import main
from geopos_diffusers.command_line import Parser


@pytest.fixture
def parser() -> Parser:
    parser = Parser(prog="program")
    parser.add_argument("--max-images", "--max", type=int, aliases=("--limit",), group="data")
    parser.add_argument("--overwrite", action="store_true", help="replace it")
    parser.add_argument("--mobilenet", action="store_true", default=True, help="leave it out", aliases=("--net",))
    parser.add_argument("--mode", choices=("train", "draw"), advanced=True, help="of the program")
    parser.add_argument("--words", nargs="+")
    return parser


@pytest.mark.parametrize("line", ["--max-images 3", "--max_images=3", "--max 3", "--limit 3", "--limit=3"])
def test_every_spelling_of_an_option_is_the_same(parser, line):
    assert parser.parse_args(line.split()).max_images == 3


@pytest.mark.parametrize(
    ("line", "overwrite", "mobilenet"),
    [
        ("", False, True),
        ("--overwrite --no-mobilenet", True, False),
        ("--overwrite true --mobilenet false", True, False),
        ("--overwrite=True --net=False", True, False),
        ("--overwrite --no_overwrite --no_net --mobilenet", False, True),
    ],
)
def test_flags(parser, line, overwrite, mobilenet):
    args = parser.parse_args(line.split())
    assert (args.overwrite, args.mobilenet) == (overwrite, mobilenet)


def test_a_flag_takes_no_other_value(parser, capsys):
    for line in ("--overwrite=perhaps", "--overwrite perhaps"):
        with pytest.raises(SystemExit):
            parser.parse_args(line.split())
    assert "perhaps" in capsys.readouterr().err


def test_words_behind_two_dashes_stay_as_they_are(parser):
    assert parser.respell(["--limit", "3", "--", "--limit"]) == ["--max-images", "3", "--", "--limit"]


def test_help_has_one_spelling_of_each_and_hides_what_is_advanced(parser):
    shown = parser.format_help()
    assert "\ndata:\n  --max-images" in shown
    assert "  --overwrite " in shown
    assert "  --no-mobilenet " in shown
    assert "  --help-all " in shown
    assert not any(hidden in shown for hidden in ("--limit", "--no-overwrite", "--mode", "max_images"))


def test_all_help(parser, capsys):
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--help-all"])
    assert end.value.code == 0
    assert "--mode {train,draw}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("--max-imags 3", "unknown option --max-imags; did you mean --max-images?"),
        ("--limi 3", "unknown option --limi; did you mean --max-images?"),
        ("--over", "unknown option --over"),
        ("--mode trian", "did you mean train?"),
    ],
)
def test_unknown_options_and_choices(parser, line, answer, capsys):
    with pytest.raises(SystemExit) as end:
        parser.parse_args(line.split())
    assert end.value.code == 2
    assert answer in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["trian"], "did you mean train?"),
        (["generate", "--guidance-scal", "3"], "geopos generate: error: unknown option --guidance-scal; did you mean"),
        (["data", "hand"], "did you mean hands?"),
        (["data", "hands", "--siz", "3"], "geopos data hands: error: unknown option --siz; did you mean --size?"),
    ],
)
def test_commands(words, answer, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert answer in capsys.readouterr().err
