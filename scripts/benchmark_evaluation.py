"""Measure what scoring images costs: the detector alone, all of detection, an evaluation from end to end, a second one.

    python scripts/benchmark_evaluation.py --num-images 1000 --size 256 --output runs/benchmark_evaluation

Renders hands once. Prints one JSON object: the time of detection by the detector's own time on images that are
prepared already (rounds that take turns), and time and memory of `geopos evaluate` on all cores, without and with a
filled cache.
"""

import argparse
import datetime
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from geopos_diffusers.command_line import Parser
from geopos_diffusers.errors import GeoPosError
from geopos_diffusers.metrics.hand_detection import HandDetector, surround


def detection_ratio(folder: Path, count: int, rounds: int) -> dict[str, float]:
    """Median time an image of `HandDetector.detect` and of the networks alone, and their ratio, in turns.

    The networks' own time is that of MediaPipe's call on a prepared image and, where a hand is found, of the presence.
    """
    images = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.png"))[:count]]
    whole, own = [], []
    with HandDetector() as detector:
        mediapipe, landmarker, presence = detector._mediapipe, detector._landmarker, detector._presence
        prepared = [surround(image) for image in images]
        frames = [mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels) for pixels, _, _ in prepared]
        points = [
            [hand.landmarks * scale + (*offset, 0) for hand in detector.detect(image)]
            for image, (_, scale, offset) in zip(images, prepared, strict=True)
        ]
        for _ in range(rounds):
            start = time.perf_counter()
            for image in images:
                detector.detect(image)
            middle = time.perf_counter()
            for frame, (pixels, _, _), hands in zip(frames, prepared, points, strict=True):
                landmarker.detect(frame)
                for landmarks in hands if presence is not None else ():
                    presence.look(pixels, landmarks)
            end = time.perf_counter()
            whole.append((middle - start) / len(images))
            own.append((end - middle) / len(images))
    ratios = [first / second for first, second in zip(whole, own, strict=True)]
    return {
        "detect_ms": round(1000 * statistics.median(whole), 2),
        "own_ms": round(1000 * statistics.median(own), 2),
        "ratio": round(statistics.median(ratios), 3),
    }


def evaluation_seconds(folder: Path, reference: Path, output: Path, cache: Path) -> dict[str, float]:
    """Seconds and peak memory (of the largest process, in MB) of one `geopos evaluate` as a process of its own."""
    command = [sys.executable, "-m", "geopos_diffusers.cli.main", "evaluate", "--images", str(folder), "--reference"]
    command += [str(reference), "--output", str(output), "--overwrite", "--quiet"]
    start = time.perf_counter()
    subprocess.run(command, check=True, env={**os.environ, "GEOPOS_CACHE": str(cache)}, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    # Of children that have ended; KiB on Linux. It never falls, so the first and largest run counts.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"seconds": round(seconds, 1), "peak_mb": round(peak)}


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the images and reports")
    parser.add_argument("--num-images", type=int, default=1000, help="images to score (%(default)s)")
    parser.add_argument("--reference-images", type=int, default=200, help="images of the reference (%(default)s)")
    parser.add_argument("--size", type=int, default=256, help="pixels a side (%(default)s)")
    parser.add_argument("--timed-images", type=int, default=100, help="images of the detector's rounds (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the detector (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    from geopos_diffusers.cli.main import main as geopos

    folders = {"images": args.num_images, "reference": args.reference_images}
    for index, (name, count) in enumerate(folders.items()):
        target = args.output / name
        options = ["--num-images", count, "--size", args.size, "--seed", args.seed + index, "--num-workers", 2]
        if not target.exists() and geopos(["data", "hands", *map(str, options), "--output", str(target)]) != 0:
            return 2
    images, reference = args.output / "images", args.output / "reference"
    try:
        detection = detection_ratio(images, args.timed_images, args.rounds)
    except GeoPosError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    cache = args.output / f"cache-{os.getpid()}"
    cache.mkdir()
    link_models(cache)
    first = evaluation_seconds(images, reference, args.output / "report", cache)
    second = evaluation_seconds(images, reference, args.output / "report", cache)
    record = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "images": args.num_images,
        "reference_images": args.reference_images,
        "size": args.size,
        "detection": detection,
        "first": first,
        "second": second,
    }
    print(json.dumps(record, indent=2))
    return 0


def link_models(cache: Path) -> None:
    """Give a fresh cache the models of the user's, so that no download is timed."""
    from geopos_diffusers.metrics.wheel_files import cache_directory

    for path in cache_directory().iterdir():
        if path.suffix in (".task", ".safetensors"):
            (cache / path.name).symlink_to(path.resolve())


if __name__ == "__main__":
    sys.exit(main())
