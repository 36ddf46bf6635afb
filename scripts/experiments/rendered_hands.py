"""Folders of rendered hands, as `geopos data hands` writes them."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from geopos_diffusers.cli.main import main as geopos

# Poses, views and colours that the packaged model knows, and with their size its hands.
KNOWN_POSES = shlex.split(
    "--views palm back --max-tilt 12 --max-rotation 15 --poses canonical --backgrounds plain "
    "--colours white gray black yellow green teal blue purple"
)
KNOWN_HANDS = (*KNOWN_POSES, "--fill", "0.7", "0.88")


def render(folder: Path, count: int, size: int, seed: int, options: Sequence[str] = ()) -> Path:
    """Render hands into a folder, unless it is there. SystemExit where the command fails.

    Args:
        options: of `geopos data hands`, such as `KNOWN_HANDS`.
    """
    if not folder.is_dir():
        words = ["--num-images", count, "--size", size, "--seed", seed, *options, "--output", folder]
        if (code := geopos(["data", "hands", *map(str, words)])) != 0:
            sys.exit(code)
    return folder
