"""Hands with pictures of their skeletons: rendered ones, and photographs whose key points a detector found."""

import json
import shlex
import sys
from pathlib import Path

from PIL import Image

from geopos_diffusers.cli.main import main as geopos
from geopos_diffusers.data.hand_conditions import draw_skeleton
from geopos_diffusers.files import atomic_directory
from geopos_diffusers.images.metadata import METADATA
from geopos_diffusers.metrics.hand_detection import HandDetector

from ..photographs import read_photographs

# What the packaged model knows: it then has to learn places alone.
KNOWN_POSES = shlex.split(
    "--views palm back --max-tilt 12 --max-rotation 15 --poses canonical --backgrounds plain "
    "--colours white gray black yellow green teal blue purple --fill 0.7 0.88"
)
CAPTION = "a photo of a hand"  # of photographs


def render(folder: Path, count: int, size: int, seed: int) -> Path:
    """Rendered hands in known poses, with skeletons and depth."""
    if not folder.is_dir():
        words = ["data", "hands", "--num-images", count, "--size", size, "--seed", seed, *KNOWN_POSES]
        words += ["--conditioning", "skeleton", "depth", "--quiet", "--output", folder]
        if (code := geopos([str(word) for word in words])) != 0:
            sys.exit(code)
    return folder


def export_photographs(source: Path, folder: Path, count: int, size: int) -> Path:
    """Evenly chosen photographs in which one hand is found, with the skeleton of its key points."""
    if folder.is_dir():
        return folder
    rows = read_photographs(source)
    with (
        atomic_directory(folder) as target,
        open(target / METADATA, "w", encoding="utf-8") as metadata,
        HandDetector(presence=False) as detector,
    ):
        (target / "skeleton").mkdir()
        for index in range(count):
            row = rows[index * len(rows) // count]
            hands = detector.detect(row["image"])
            if len(hands) != 1:
                continue
            name = f"{index:06d}.png"
            scale = size / row["image"].width
            points = (hands[0].landmarks[:, :2] * scale).round(2).tolist()
            row["image"].resize((size, size), Image.Resampling.BICUBIC).save(target / name)
            draw_skeleton(points, size).save(target / "skeleton" / name)
            entry = {"file_name": name, "text": CAPTION, "skeleton_file_name": f"skeleton/{name}", "keypoints": points}
            metadata.write(json.dumps(entry) + "\n")
    return folder
