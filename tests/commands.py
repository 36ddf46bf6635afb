"""Runs `geopos` commands in this process, as `tests/cli` does."""

from pathlib import Path

import torch

from geopos_diffusers import apply_geoconv, geoconv_parameters, save_geoconv_weights
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


def save_random_adapter(pipe, folder: Path, seed: int) -> str:
    """Save an adapter whose weights are large enough to change an image."""
    apply_geoconv(pipe)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in geoconv_parameters(pipe).values():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    save_geoconv_weights(pipe, folder)
    return str(folder)
