"""The rooms of the package and the one direction of their imports, as docs/architecture.md draws them."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "geopos_diffusers"
# Each room with those that it may import; all may import the package's own files (errors, files, folder_lock).
ROOMS = {
    "images": set(),
    "patching": set(),
    "adapters": {"patching"},
    "pipelines": {"patching"},
    "data": {"images"},
    "training": set(),
    "metrics": {"images"},
    "repair": {"patching", "pipelines", "data", "images", "metrics"},
    "finetuning": {"patching", "adapters", "pipelines", "images", "training", "metrics"},
    "cli": {"patching", "adapters", "pipelines", "images", "data", "training", "metrics", "repair", "finetuning"},
}
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
LABORATORY = sorted((REPOSITORY / "scripts").rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    """Full names of the modules that a file imports, also within functions."""
    package = path.relative_to(REPOSITORY).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = {f"{module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if is_module(name)} or {module}
    return found


def is_module(name: str) -> bool:
    path = REPOSITORY.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def room_of(module: str) -> str | None:
    """The room of a module of the package; None for the package's own files and for other packages."""
    parts = module.split(".")
    return parts[1] if parts[0] == "geopos_diffusers" and len(parts) > 1 and parts[1] in ROOMS else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    own = path.relative_to(PACKAGE).parts[0]
    rooms = {room for module in imported_modules(path) if (room := room_of(module))} - {own}
    assert rooms <= ROOMS.get(own, set())


def test_every_folder_is_a_room_without_circles():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(ROOMS)
    assert len([*TopologicalSorter(ROOMS).static_order()]) == len(ROOMS)


def test_no_circle_among_files():
    graph = {}
    for path in FILES:
        name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        own = {module for module in imported_modules(path) if module.startswith("geopos_diffusers.")}
        graph[name.removesuffix(".__init__")] = own
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_package_needs_neither_laboratory_nor_tests(path):
    first = {module.partition(".")[0] for module in imported_modules(path)}
    assert not first & {"scripts", "experiments", "tests", "pytest"}


@pytest.mark.parametrize("path", LABORATORY, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_scripts_need_no_tests(path):
    modules = {module.partition(".")[0] for module in imported_modules(path)}
    assert not modules & {file.stem for file in (REPOSITORY / "tests").glob("*.py")}


def test_the_architecture_page_names_every_room():
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    for room, below in ROOMS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{room}/` |"))
        named = row.split("|")[3]
        assert {name for name in ROOMS if f"`{name}`" in named} == below


def test_the_files_of_finetuning_that_import_metrics_are_those_that_the_page_names():
    """They are loaded with options of their own, since other runs need neither the networks nor the extra."""
    files = {path for path in FILES if "metrics" in {room_of(module) for module in imported_modules(path)}}
    found = {path.name for path in files if path.parent.name == "finetuning"}
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    paragraph = next(text for text in page.split("\n\n") if "files of `finetuning/` import `metrics`" in text)
    assert found == set(re.findall(r"`(\w+\.py)`", paragraph))
