"""Runs `geopos` commands in this process, as `tests/cli` does."""

from pathlib import Path

from trained_models import trained_stable_diffusion

from geopos_diffusers import save_geoconv_weights
from geopos_diffusers.cli.main import main


def generate(model: str, output: Path, *extra: str) -> int:
    options = ["--model", model, "--output", str(output), "--steps", "2", "--seed", "3", *extra]
    return main(["generate", *options])


def refused(capsys, *arguments: str) -> str:
    """The one line on standard error of a command that is refused with exit code 2."""
    assert main(list(arguments)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("geopos ")]
    assert len(lines) == 1
    return lines[0]


def save_random_adapter(folder: Path, seed: int) -> str:
    """Save an adapter of the tiny pipeline whose weights are large enough to change an image."""
    save_geoconv_weights(trained_stable_diffusion(seed=seed, size=1.0), folder)
    return str(folder)


def spoiled_hands(folder: Path, count: int) -> Path:
    """A folder of rendered hands of 96 pixels, none of them well formed, within `folder`."""
    options = ["--size", "96", "--seed", "5", "--views", "palm", "--max-tilt", "12", "--max-rotation", "15", "--quiet"]
    options += ["--defects", "1", "--defect-kinds", "melted", "--backgrounds", "plain", "--fill", "0.5", "0.6"]
    assert main(["data", "hands", "--num-images", str(count), *options, "--output", str(folder / "hands")]) == 0
    return folder / "hands"
