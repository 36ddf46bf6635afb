"""The examples in docstrings: they run as written, and every public name has one."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import geopos_diffusers

PACKAGE = Path(geopos_diffusers.__file__).parent
ROOMS = ("patching", "adapters", "pipelines", "images", "metrics", "repair")
FILES = [
    PACKAGE / "boxes.py",
    PACKAGE / "errors.py",
    PACKAGE / "optional_packages.py",
    *(path for room in ROOMS for path in sorted((PACKAGE / room).glob("*.py"))),
]
MODULES = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in FILES]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run_as_written(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write an adapter
    assert doctest.testmod(import_module(name)).failed == 0


@pytest.mark.parametrize("name", sorted(set(geopos_diffusers.__all__) - {"__version__"}))
def test_every_public_name_has_an_example(name):
    thing = getattr(geopos_diffusers, name)
    assert any(test.examples for test in doctest.DocTestFinder(recurse=False).find(thing, name))
