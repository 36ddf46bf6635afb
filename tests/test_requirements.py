"""What pyproject.toml, constraints.txt and the tools say of versions agrees."""

import re
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("dependency", PROJECT["dependencies"])
def test_dependencies_run_on_the_lowest_python(dependency):
    lowest = PROJECT["requires-python"].removeprefix(">=")
    needed = metadata(Requirement(dependency).name)["Requires-Python"]
    assert SpecifierSet(needed or "").contains(f"{lowest}.0")


def test_pre_commit_runs_the_pinned_ruff():
    pinned = re.search(r"^ruff==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)[1]
    assert f"rev: v{pinned}\n" in (REPOSITORY / ".pre-commit-config.yaml").read_text()
