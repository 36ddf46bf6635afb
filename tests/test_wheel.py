"""The wheel alone, installed in an environment of its own: the package, its models and configs, and nothing else."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).parents[1]
WEB = {".json", ".js", ".css", ".html"}
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, since building leaves folders beside the sources."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    for name in ("geopos_diffusers", "configs", "scripts", "tests"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", output, source], check=True)
    return next(output.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """The programs of an environment with the wheel, in which this one's other packages can be imported."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    subprocess.run([*PIP, "--python", folder, "install", "--no-deps", "--no-index", wheel], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    # Behind the environment's own, and without what this environment's .pth files add, such as the checkout.
    (site / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return folder / "bin"


def run(command: list, folder: Path) -> subprocess.CompletedProcess:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


def test_what_the_wheel_holds(wheel):
    with ZipFile(wheel) as opened:
        names = {name for name in opened.namelist() if ".dist-info/" not in name}
    package = {path for path in (REPOSITORY / "geopos_diffusers").rglob("*.py") if "__pycache__" not in path.parts}
    assert {name for name in names if name.endswith(".py")} == {str(path.relative_to(REPOSITORY)) for path in package}
    configs = {f"geopos_diffusers/configs/{path.name}" for path in (REPOSITORY / "configs").glob("*.yaml")}
    assert {name for name in names if name.endswith(".yaml")} == configs
    assert configs
    assert "geopos_diffusers/py.typed" in names
    package_data = [path for path in (REPOSITORY / "geopos_diffusers/metrics").rglob("*") if path.suffix in WEB]
    assert {str(path.relative_to(REPOSITORY)) for path in package_data} <= names
    assert len(package_data) >= 7
    assert "geopos_diffusers/pretrained/hands64/unet/diffusion_pytorch_model.safetensors" in names


def test_training_by_the_name_of_a_config_from_an_empty_folder(environment, tmp_path):
    data, work = tmp_path / "hands", tmp_path / "work"
    data.mkdir()
    work.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data / "0.png")
    (data / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a hand"}\n')

    where = run([environment / "python", "-c", "import geopos_diffusers as g; print(g.__file__)"], work)
    assert Path(where.stdout.strip()).is_relative_to(environment.parent), where.stderr
    options = ["--dataset", data, "--output", "run", "--report-to", "none"]
    done = run([environment / "geopos", "train", "--config", "finetune_hands", *options, "--dry-run"], work)
    assert done.returncode == 0, done.stderr
    facts = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if len(line.split()) > 1)
    assert (facts["model"], facts["train"], facts["steps"]) == ("hands64", "geoconv", "300")

    done = run([environment / "geopos", "train", "--config", "finetune_hand", *options], work)
    assert done.returncode == 2
    known = ", ".join(sorted(path.stem for path in (REPOSITORY / "configs").glob("*.yaml")))
    assert f"no config file finetune_hand; packaged are {known}; did you mean finetune_hands?" in done.stderr
    done = run([environment / "python", "-c", "import geopos_diffusers.experiments"], work)
    assert "No module named" in done.stderr
