import ast
import subprocess
import sys
from pathlib import Path

import geopos_diffusers

HEAVY = ("torch._dynamo", "diffusers", "transformers", "accelerate", "peft", "datasets", "matplotlib", "mediapipe")


def test_importing_the_package_imports_nothing_heavy_beside_torch():
    """All public names, in a fresh process: what takes time is left to those who use it."""
    code = f"""
import sys, torch
before = set(sys.modules)
import geopos_diffusers
for name in geopos_diffusers.__all__:
    getattr(geopos_diffusers, name)
print(sorted(set({HEAVY!r}) & (set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_type_checkers_see_every_public_name():
    """The stub of the package names what it exports, from the modules where that is."""
    stub = Path(geopos_diffusers.__file__).with_suffix(".pyi")
    imported = {
        alias.asname: node.module
        for node in ast.walk(ast.parse(stub.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    exported = set(geopos_diffusers.__all__) - {"__version__"}
    assert {
        name: getattr(geopos_diffusers, name).__module__.removeprefix("geopos_diffusers.") for name in exported
    } == imported
