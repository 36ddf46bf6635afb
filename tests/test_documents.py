"""The examples of README.md, other pages, results and cards: commands name real options, Python blocks compile."""

import argparse
import ast
import importlib
import re
import runpy
import shlex
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest
from accelerate.commands.launch import launch_command_parser

from geopos_diffusers.cli.main import main
from geopos_diffusers.cli.train import split_options
from geopos_diffusers.finetuning.kinds import arguments_class, split_kind
from geopos_diffusers.training.arguments import parse_arguments

REPOSITORY = Path(__file__).parents[1]
PAGES = ("docs/*.md", "*.md", "docs/results/*.md", "geopos_diffusers/pretrained/*/README.md")
DOCUMENTS = sorted({path for pages in PAGES for path in REPOSITORY.glob(pages)})
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`((?:geopos|python|accelerate launch|make) [^`]+)`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
SWEEP = "scripts/sweep_learning_rate.py"  # hands on to `geopos train` what it does not know


class Example(NamedTuple):
    """A piece of a document, named by its file and line."""

    where: str
    text: str


def place(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def blocks(*languages: str) -> list[Example]:
    found = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            if match[2] in languages:
                line = text[: match.start()].count("\n") + 1
                body = "".join(part.removeprefix(match[1]) for part in match[3].splitlines(keepends=True))
                found.append(Example(f"{place(path)}:{line}", body))
    return found


def commands(block: str, variables: dict[str, str]) -> list[list[str]]:
    """The commands of a shell block, split into words, with variables in their place; those that it sets are added.

    Of several commands on one line each is taken alone. "..." stands for options that the reader knows.
    """
    found = []
    for line in shell_lines(block):
        line = re.sub(r"\$\{?(\w+)\}?", lambda match: variables.get(match[1], match[0]), line)
        if assignment := re.fullmatch(r"\s*(\w+)=(\"[^\"]*\"|\S*)\s*", line, re.DOTALL):
            variables[assignment[1]] = " ".join(assignment[2].strip('"').split())
            continue
        for command in re.split(r"&&|;|\|", line):
            if words := shlex.split(command, comments=True):
                found.append(words)
    return found


def shell_lines(block: str) -> list[str]:
    """Lines of a shell block; those that end within quotes or with a backslash go on in the next."""
    lines, held = [], ""
    for line in block.splitlines():
        held += line
        if held.endswith("\\"):
            held = held[:-1] + " "
        elif held.count('"') % 2:
            held += "\n"
        else:
            lines.append(held)
            held = ""
    return lines


def shell_commands() -> list[Example]:
    """The commands of all shell blocks that start something of this repository."""
    variables: dict[str, dict[str, str]] = defaultdict(dict)  # by page
    starts = ("geopos", "python", "accelerate", "torchrun", "make")
    return [
        Example(block.where, shlex.join(words))
        for block in blocks("bash", "sh", "console", "")
        for words in commands(block.text, variables[block.where.partition(":")[0]])
        if words[0] in starts
    ]


SHELL = shell_commands()
INLINE_COMMANDS = [
    Example(place(path), " ".join(match[1].split()))
    for path in DOCUMENTS
    for match in INLINE.finditer(path.read_text(encoding="utf-8"))
    if "NAME" not in match[1]
]


def name(example: Example) -> str:
    return f"{example.where} {example.text[:60]}"


class Accepted(BaseException):
    """Raised when a program has parsed its command line, in the place of what it would do."""


def start(program: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a program parse its arguments: `geopos`, the path of a script, or a module (`-m ...`).

    Raises:
        Accepted: the arguments are.
        SystemExit: they are not, or `--help` is among them.
    """
    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_stop(*args, **kwargs):
        parse_args(*args, **kwargs)
        raise Accepted

    parse_known_args = argparse.ArgumentParser.parse_known_args

    def hand_on(*args, **kwargs):
        _, others = parse_known_args(*args, **kwargs)
        monkeypatch.undo()
        start("geopos", ["train", *others, "--output-dir", "runs/one-rate"], monkeypatch)

    if kind := re.fullmatch(r"scripts/finetune_(\w+)\.py", program):  # which checks values only when it starts
        program, arguments = "geopos", ["train", kind[1].replace("_", "-"), *arguments]
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, "argv", [program.removeprefix("-m "), *arguments])
    if program == "geopos" and arguments[0] == "train":
        kind, words = split_kind(arguments[1:])
        parse_arguments(arguments_class(kind), split_options(words, arguments_class(kind))[1])
        raise Accepted
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    if program == SWEEP:
        monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", hand_on)
    if program == "geopos":
        main(arguments)
    elif program.startswith("-m "):
        runpy.run_module(program[3:], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(program, run_name="__main__")


def options_of(program: str, command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch) -> set[str]:
    """The options that `--help` of a program prints, or `--help-all` where it has one; with "-" for every "_"."""
    options: set[str] = set()
    for option in ("--help", "--help-all"):
        if option == "--help" or option in options:
            with pytest.raises(SystemExit):
                start(program, [*command, option], monkeypatch)
            options |= set(re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out.replace("_", "-")))
    if command == ["train"]:
        options |= launcher_options()
    if program == SWEEP:
        options |= options_of("geopos", ["train"], capsys, monkeypatch)
    return options


def launcher_options() -> set[str]:
    """Options of `accelerate launch`, which may stand among those of `geopos train`."""
    actions = launch_command_parser()._actions
    return {name.replace("_", "-") for action in actions for name in action.option_strings}


def split_command(words: list[str]) -> tuple[str, list[str], list[str]] | None:
    """The program of a command, its sub-commands and the arguments; None where it is not of this repository."""
    if words[0] == "geopos":
        length = 3 if words[1] == "data" else 2
        return "geopos", words[1:length], words[length:]
    for position, word in enumerate(words):
        if word == "-m" and words[position + 1].startswith("scripts."):
            return f"-m {words[position + 1]}", [], words[position + 2 :]
        if re.fullmatch(r"(scripts|tests)/[\w/]+\.py", word):
            return word, [], words[position + 1 :]
    return None


def is_target(word: str) -> bool:
    return re.search(rf"^{re.escape(word)}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE) is not None


@pytest.mark.parametrize("example", SHELL, ids=name)
def test_commands_in_blocks_are_accepted(example, capsys, monkeypatch):
    words = shlex.split(example.text)
    if words[0] == "make":
        assert is_target(words[1])
    elif (found := split_command(words)) is not None:
        program, command, arguments = found
        if "..." in arguments:
            named = {word.replace("_", "-") for word in arguments if word.startswith("--")}
            assert named <= options_of(program, command, capsys, monkeypatch)
        else:
            with pytest.raises(Accepted):
                start(program, [*command, *arguments], monkeypatch)


@pytest.mark.parametrize("example", INLINE_COMMANDS, ids=name)
def test_commands_in_the_text_name_real_options(example, capsys, monkeypatch):
    words = example.text.split()
    if words[0] == "make":
        assert is_target(words[1])
    elif (found := split_command(words)) is not None:
        program, command, arguments = found
        named = {word.replace("_", "-") for word in arguments if word.startswith("--")}
        command = [part.split("|")[0] for part in command]  # "data hands|faces"
        assert named <= options_of(program, command, capsys, monkeypatch)


@pytest.mark.parametrize("example", blocks("python", "py"), ids=name)
def test_python_blocks_compile_and_import_what_exists(example):
    tree = ast.parse(example.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=place)
def test_links_lead_to_files(path):
    text = path.read_text(encoding="utf-8")
    missing = [target for target in LINK.findall(text) if not (path.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("path", DOCUMENTS, ids=place)
def test_named_files_exist(path):
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/.-])((?:scripts|tests|configs|docs)/[\w/.-]+\.(?:py|yaml|md|json|txt))\b", text)
    assert [file for file in named if "NAME" not in file and not (REPOSITORY / file).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=place)
def test_named_tests_exist(path):
    """A file or class of tests that a page names as its evidence exists."""
    files = [*(REPOSITORY / "tests").rglob("test_*.py")]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    classes = set(re.findall(r"^class (Test\w+)", code, re.MULTILINE))
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"\btest_\w+\.py\b", text)) <= {file.name for file in files}
    assert set(re.findall(r"\bTest[A-Z]\w+", text)) <= classes


def test_examples_were_found():
    assert len(SHELL) > 10
    assert len(INLINE_COMMANDS) > 5
    assert len(blocks("python")) > 5
