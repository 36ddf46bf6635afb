"""The examples of README.md, docs/*.md and the other pages: commands name real options, Python blocks compile."""

import ast
import importlib
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from accelerate.commands.launch import launch_command_parser

from geopos_diffusers.cli.main import main
from geopos_diffusers.finetuning.arguments import FinetuningArguments
from geopos_diffusers.training.arguments import parse_arguments

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = sorted({*REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("*.md")})
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`((?:geopos|python|accelerate launch|make) [^`]+)`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
SCRIPT = re.compile(r"(?<![\w/])((?:-m scripts\.[\w.]+)|(?:(?:scripts|tests)/[\w/]+\.py))")


class Example(NamedTuple):
    """A piece of a document, named by its file and line."""

    where: str
    text: str


def blocks(*languages: str) -> list[Example]:
    found = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            if match[2] in languages:
                line = text[: match.start()].count("\n") + 1
                body = "".join(part.removeprefix(match[1]) for part in match[3].splitlines(keepends=True))
                found.append(Example(f"{path.name}:{line}", body))
    return found


def commands(block: str) -> list[list[str]]:
    """The commands of a shell block, split into words, with the variables that the block sets in their place.

    Of several commands on one line each is taken alone. "..." stands for options that the reader knows.
    """
    variables: dict[str, str] = {}
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


SHELL = [
    Example(example.where, shlex.join(words))
    for example in blocks("bash", "sh", "console", "")
    for words in commands(example.text)
    if words[0] in ("geopos", "python", "accelerate", "torchrun", "make", "...")
]
INLINE_COMMANDS = [
    Example(path.name, " ".join(match[1].split()))
    for path in DOCUMENTS
    for match in INLINE.finditer(path.read_text(encoding="utf-8"))
    if "NAME" not in match[1]
]


def name(example: Example) -> str:
    return f"{example.where} {example.text[:60]}"


def help_of(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What `--help` of a command prints, or `--help-all` where it has one; with "-" for every "_".

    A command is `geopos X`, the path of a script, or a module (`-m ...`).
    """
    text = printed(command, "--help", capsys, monkeypatch)
    return printed(command, "--help-all", capsys, monkeypatch) if "--help-all" in text else text


def printed(command: str, option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, "argv", [command.removeprefix("-m "), option])
    with pytest.raises(SystemExit) as end:
        if command.startswith("geopos"):
            main([*command.split()[1:], option])
        elif command.startswith("-m "):
            runpy.run_module(command[3:], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(command, run_name="__main__")
    assert end.value.code == 0
    return capsys.readouterr().out.replace("_", "-")


def launcher_options() -> set[str]:
    """Options of `accelerate launch`, which may stand among those of `geopos train`."""
    actions = launch_command_parser()._actions
    return {name.replace("_", "-") for action in actions for name in action.option_strings}


def program(text: str) -> tuple[str, str] | None:
    """What a command starts, and the words after it; None where it starts nothing of this repository."""
    if match := re.match(r"geopos (data (?:hands|faces)|[a-z]+)", text):
        return match[0], text[match.end() :]
    if match := SCRIPT.search(text):
        return match[1], text[match.end() :]
    return None


def check_options(text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every `--option` after the program of a command stands in the program's help, in either spelling."""
    if text.startswith("make "):
        targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert text.split()[1] in targets
    elif (found := program(text)) is not None:
        started, rest = found
        options = set(re.findall(r"(?<!\S)--[a-z][\w-]*", rest))
        known = set(re.findall(r"--[a-z][a-z0-9-]*", help_of(started, capsys, monkeypatch)))
        if started == "geopos train":
            known |= launcher_options()
        assert {option.replace("_", "-") for option in options} <= known


@pytest.mark.parametrize("example", SHELL, ids=name)
def test_commands_in_blocks_name_real_options(example, capsys, monkeypatch):
    check_options(example.text.replace("'", ""), capsys, monkeypatch)


@pytest.mark.parametrize("example", INLINE_COMMANDS, ids=name)
def test_commands_in_the_text_name_real_options(example, capsys, monkeypatch):
    check_options(example.text, capsys, monkeypatch)


@pytest.mark.parametrize(
    "example", [example for example in SHELL if example.text.startswith("geopos train ")], ids=name
)
def test_training_commands_are_accepted(example, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    words = shlex.split(example.text)[2:]
    if "..." not in words:
        parse_arguments(FinetuningArguments, words)


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


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(path):
    text = path.read_text(encoding="utf-8")
    missing = [target for target in LINK.findall(text) if not (path.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_exist(path):
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/.-])((?:scripts|tests|configs|docs)/[\w/.-]+\.(?:py|yaml|md|json|txt))\b", text)
    assert [file for file in named if "NAME" not in file and not (REPOSITORY / file).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_named_tests_exist(path):
    """A file or class of tests that a page names as its evidence exists."""
    files = [*(REPOSITORY / "tests").rglob("test_*.py")]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    classes = set(re.findall(r"^class (Test\w+)", code, re.MULTILINE))
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"\btest_\w+\.py\b", text)) <= {file.name for file in files}
    assert set(re.findall(r"\bTest[A-Z]\w+", text)) <= classes


def test_pre_commit_runs_the_pinned_ruff():
    pinned = re.search(r"^ruff==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)[1]
    assert f"rev: v{pinned}\n" in (REPOSITORY / ".pre-commit-config.yaml").read_text()


def test_examples_were_found():
    assert len(SHELL) > 10
    assert len(INLINE_COMMANDS) > 5
    assert len(blocks("python")) > 5
