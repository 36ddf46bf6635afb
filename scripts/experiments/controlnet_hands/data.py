"""Hands with pictures of their skeletons: rendered ones, and photographs whose key points a detector found."""

import json
from pathlib import Path

from PIL import Image

from geopos_diffusers.data.hand_conditions import draw_skeleton
from geopos_diffusers.files import atomic_directory
from geopos_diffusers.images.metadata import METADATA
from geopos_diffusers.metrics.hand_detection import HandDetector

from ..photographs import read_photographs
from ..rendered_hands import KNOWN_HANDS, render

CAPTION = "a photo of a hand"  # of photographs


def render_conditioned(folder: Path, count: int, size: int, seed: int) -> Path:
    """Rendered hands that the packaged model knows, so that it has to learn places alone, with skeletons and depth."""
    return render(folder, count, size, seed, [*KNOWN_HANDS, "--conditioning", "skeleton", "depth", "--quiet"])


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
