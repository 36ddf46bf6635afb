"""Measure the hand detector and the finger count on labelled photographs of hands.

    python scripts/benchmark_hand_metrics.py --parquet test.parquet

The Parquet file has the columns `image` (encoded picture) and `label`; labels 0 to 5 are the number of raised fingers,
others count for the detection rate only. Prints one JSON object.
"""

import argparse
import datetime
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from experiments.photographs import read_photographs
from PIL import Image
from tqdm import tqdm

from geopos_diffusers.command_line import Parser
from geopos_diffusers.errors import GeoPosError
from geopos_diffusers.metrics.detection_rate import rate
from geopos_diffusers.metrics.finger_count import COUNTS, confusion_matrix, count_fingers, count_scores
from geopos_diffusers.metrics.hand_detection import BORDER, HandDetector

Change = Callable[[Image.Image], Image.Image]


def changes(sizes: list[int], turns: bool) -> dict[str, Change]:
    """What is done to the photographs before they are scored, by name."""
    named: dict[str, Change] = {
        f"{size} px": lambda image, size=size: image.resize((size, size), Image.Resampling.LANCZOS) for size in sizes
    }
    if turns:
        for degrees in (90, 180, 270):
            named[f"turned by {degrees} degrees"] = lambda image, degrees=degrees: image.rotate(degrees)
        named["mirrored"] = lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return named


def choose_photographs(path: Path, limit: int | None, seed: int) -> list[tuple[Image.Image, object]]:
    """(picture, label) of each row of a Parquet file, or of `limit` rows chosen by `seed`."""
    rows = read_photographs(path)
    if limit is not None and limit < len(rows):
        chosen = np.sort(np.random.default_rng(seed).choice(len(rows), limit, replace=False))
        rows = [rows[index] for index in chosen]
    return [(row["image"], row["label"]) for row in rows]


def measure(detector: HandDetector, photographs: list[tuple[Image.Image, object]], change: Change, seed: int) -> dict:
    """Rates and time of one variant of the photographs."""
    counted: list[int | None] = []
    hands: list[str] = []
    started = time.process_time()
    for image, _ in tqdm(photographs, unit="image", leave=False):
        detection = next(iter(detector.detect(change(image))), None)
        counted.append(None if detection is None else count_fingers(detection.landmarks))
        if detection is not None:
            hands.append(detection.handedness)
    seconds = time.process_time() - started
    expected = [int(label) if label in COUNTS else None for _, label in photographs]
    right, errors = count_scores(expected, counted)
    known = [(wanted, count) for wanted, count in zip(expected, counted, strict=True) if wanted is not None]
    return {
        "photographs": len(photographs),
        "found": vars(rate(np.array([float(count is not None) for count in counted]), seed)),
        "count_right": vars(rate(right, seed)),
        "count_error": vars(rate(errors, seed)),
        "right_hands": hands.count("right"),
        "left_hands": hands.count("left"),
        "confusion": confusion_matrix([wanted for wanted, _ in known], [count for _, count in known]).tolist(),
        "cpu_ms_per_image": round(1000 * seconds / len(photographs), 1),
    }


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dataset", type=Path, required=True, metavar="FILE", aliases=["--parquet"], help="Parquet file"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 64], help="pixels a side (100 64)")
    parser.add_argument("--no-turns", action="store_true", help="leave out the turned and mirrored copies")
    parser.add_argument("--borders", type=float, nargs="+", default=[BORDER], help="borders to compare, as shares")
    parser.add_argument(
        "--max-images", type=int, metavar="N", aliases=["--limit"], help="use N photographs, chosen by the seed"
    )
    parser.add_argument("--task", type=Path, metavar="FILE", help="HandLandmarker .task bundle")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    results: dict[str, dict] = {}
    try:
        photographs = choose_photographs(args.dataset, args.max_images, args.seed)
        for border in args.borders:
            with HandDetector(args.task, border) as detector:
                for name, change in changes(args.sizes, not args.no_turns).items():
                    results[f"{name}, border {border:g}"] = measure(detector, photographs, change, args.seed)
    except GeoPosError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    record = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "data": args.dataset.name,
        "seed": args.seed,
        "mediapipe": version("mediapipe"),
        "results": results,
    }
    print(json.dumps(record, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
