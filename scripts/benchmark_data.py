"""Measure the memory and speed of training data by their number of images: folders, Parquet files and buckets.

    python scripts/benchmark_data.py --images 2000 20000 200000 --output runs/benchmark_data

Draws as many small images as the largest number says, once, and opens the first of them by each number in a process of
its own, which reads 2,000 in the order of a training. Prints one JSON object: the process's peak of resident memory,
what of it was there before the data were opened, its own (anonymous) memory beside mapped files, the time to open, and
images a second.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from geopos_diffusers.command_line import Parser
from geopos_diffusers.errors import GeoPosError
from geopos_diffusers.files import write_json

SIZE = 24  # pixels of the longer side
READ = 2000  # images
ROWS_A_FILE = 20_000
KINDS = ("folder", "parquet", "buckets")


def draw(index: int) -> bytes:
    """A PNG of a disc on a plain ground, wide, high or square."""
    rng = np.random.default_rng(index)
    height, width = ((SIZE, SIZE), (SIZE * 2 // 3, SIZE), (SIZE, SIZE * 2 // 3))[index % 3]
    rows, columns = np.ogrid[:height, :width]
    disc = (rows - rng.uniform(0, height)) ** 2 + (columns - rng.uniform(0, width)) ** 2 < (SIZE / 4) ** 2
    pixels = np.where(disc[..., None], rng.integers(256, size=3), rng.integers(256, size=3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def write_images(folder: Path, counts: list[int]) -> None:
    """One folder of images with a metadata file for each count, and Parquet files of the same images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    lines = {count: (folder / f"first-{count}.jsonl").open("w", encoding="utf-8") for count in counts}
    rows: list[dict] = []
    for index in tqdm(range(max(counts)), "drawing"):
        data, text = draw(index), f"a disc, number {index}"
        (folder / f"{index // 1000:04d}").mkdir(exist_ok=True)
        name = f"{index // 1000:04d}/{index:08d}.png"
        (folder / name).write_bytes(data)
        for count, file in lines.items():
            if index < count:
                file.write(json.dumps({"file_name": name, "text": text}) + "\n")
        rows.append({"image": {"bytes": data, "path": None}, "text": text})
        if len(rows) == ROWS_A_FILE or index + 1 in counts:
            pq.write_table(pa.Table.from_pylist(rows), folder / f"rows-{index + 1:08d}.parquet", row_group_size=500)
            rows = []
    for file in lines.values():
        file.close()


def measure(folder: Path, kind: str, count: int) -> dict[str, float | int | str]:
    """Open the first `count` images and read some, in this process."""
    from torch.utils.data import DataLoader

    from geopos_diffusers.finetuning.image_text_data import load_image_text
    from geopos_diffusers.training.data_order import DataOrder

    if kind == "parquet":
        from datasets import Dataset  # noqa: F401 - so that its own memory counts as there before

        source = folder / f"parquet-{count}"
        source.mkdir(exist_ok=True)
        for file in folder.glob("rows-*.parquet"):
            if int(file.stem.partition("-")[2]) <= count and not (source / file.name).exists():
                (source / file.name).symlink_to(file.resolve())
    else:
        source = folder / f"first-{count}.jsonl"
    before, began = memory("RssAnon") + memory("RssFile"), time.perf_counter()
    data = load_image_text(str(source), SIZE, show_progress=False, bucket_step=2 if kind == "buckets" else None)
    data.fingerprint()
    opened = time.perf_counter()
    indices = list(DataOrder(len(data), 0, READ, 0))
    started = time.perf_counter()
    # One image a batch, since buckets' images have several sizes.
    for _ in DataLoader(data, sampler=indices):
        pass
    return {
        "kind": kind,
        "images": len(data),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "rss_before_mb": round(before, 1),
        "anonymous_mb": round(memory("RssAnon"), 1),
        "seconds_to_open": round(opened - began, 2),
        "images_a_second": round(READ / (time.perf_counter() - started)),
    }


def memory(name: str) -> float:
    """A line of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def main() -> None:
    parser = Parser(description="Measure the memory and speed of training data by their number of images.")
    parser.add_argument("--images", type=int, nargs="+", default=[2000, 20_000, 200_000], metavar="N")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for images and benchmark.json")
    parser.add_argument("--measure", nargs=2, default=None, help=argparse.SUPPRESS)  # kind and number, in a process
    args = parser.parse_args()
    folder = Path(args.output)
    if args.measure:
        print(json.dumps(measure(folder / "images", args.measure[0], int(args.measure[1]))))
        return
    counts = sorted(args.images)
    if not all((folder / "images" / f"first-{count}.jsonl").is_file() for count in counts):
        write_images(folder / "images", counts)
    results = []
    environment = {**os.environ, "HF_DATASETS_CACHE": str(folder / "cache")}
    for kind in args.kinds:
        for count in counts:
            command = [sys.executable, __file__, "--output", args.output, "--measure", kind, str(count)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            results.append(json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps(results[-1]), flush=True)
    write_json(folder / "benchmark.json", results)


if __name__ == "__main__":
    try:
        main()
    except GeoPosError as error:
        sys.exit(f"benchmark_data.py: error: {error}")
