"""The pages of `make docs` build without a warning, and the API reference has every public name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import geopos_diffusers

REPOSITORY = Path(__file__).parents[1]


def test_every_public_name_is_in_the_api_reference():
    pages = (REPOSITORY / "docs" / "reference").glob("*.md")
    named = set(re.findall(r"^::: geopos_diffusers\.(\S+)$", "\n".join(page.read_text() for page in pages), re.M))
    for name in set(geopos_diffusers.__all__) - {"__version__"}:
        module = getattr(geopos_diffusers, name).__module__.removeprefix("geopos_diffusers.")
        assert {module, f"{module}.{name}"} & named, f"{name} is on no page of docs/reference"


@pytest.mark.slow
def test_site_builds(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "apply_geoconv" in (tmp_path / "site" / "reference" / "patching" / "index.html").read_text()
