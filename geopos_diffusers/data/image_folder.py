"""Writes rendered images as a folder that `datasets.load_dataset("imagefolder", data_dir=...)` reads.

Images are PNG, numbered; `metadata.jsonl` has one line an image, in order. The folder appears whole or not at all.
"""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from ..errors import DataError
from ..files import atomic_directory, check_output
from .options import check_cores, check_count

# Draws the items with indices start..stop-1, in order; bytes must not depend on how the indices are cut into ranges.
# Attributes "NAME_file_name" may be images: they are written into the folder NAME.
DrawRange = Callable[[int, int], Iterable[tuple[Image.Image, dict[str, Any]]]]
CHUNK = 32
METADATA = "metadata.jsonl"

_draw: DrawRange | None = None  # of this worker process


def write_image_folder(
    make_draw: Callable[[], DrawRange],
    count: int,
    output: str | os.PathLike,
    workers: int = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Draw `count` images and write them with their metadata.

    Args:
        make_draw: called once in each process; returns the function that draws a range of indices. It must be
            picklable when `workers` > 1.
        count: number of images, at least 1.
        output: the folder to make. Replaced as a whole if `overwrite`.
        workers: processes; 1 draws in this one. The bytes written do not depend on it.
        progress: show a progress bar on standard error.

    Raises:
        DataError: count or workers below 1, or an output that cannot be used.
    """
    check_count(count)
    check_cores(workers)
    path = check_output(output, overwrite)
    digits = max(6, len(str(count - 1)))
    ranges = [(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    with (
        atomic_directory(path) as folder,
        open(folder / METADATA, "w", encoding="utf-8") as metadata,
        tqdm(total=count, unit="image", disable=not progress) as bar,
    ):
        for rows in _write_ranges(make_draw, ranges, folder, digits, min(workers, len(ranges))):
            for row in rows:
                metadata.write(json.dumps(row, ensure_ascii=False) + "\n")
            bar.update(len(rows))
    return path


def _write_ranges(
    make_draw: Callable[[], DrawRange], ranges: list[tuple[int, int]], folder: Path, digits: int, workers: int
) -> Iterator[list[dict[str, Any]]]:
    if workers == 1:
        draw = make_draw()
        for start, stop in ranges:
            yield _write_range(draw, folder, digits, start, stop)
        return
    # Fresh processes: a forked one would inherit locks of torch's and Embree's threads.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_interrupts)
    try:
        yield from executor.map(partial(_write_range_in_worker, make_draw, folder, digits), ranges)
    except BrokenProcessPool as error:
        raise DataError("a worker process ended early (out of memory?); try fewer --num-workers") from error
    finally:
        executor.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    # Ctrl-C reaches the whole process group: the parent alone reacts, cancels the rest and removes the folder.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _write_range_in_worker(
    make_draw: Callable[[], DrawRange], folder: Path, digits: int, bounds: tuple[int, int]
) -> list[dict[str, Any]]:
    global _draw
    if _draw is None:  # here and not in the pool's initializer, whose errors would lose their type
        _draw = make_draw()
    return _write_range(_draw, folder, digits, *bounds)


def _write_range(draw: DrawRange, folder: Path, digits: int, start: int, stop: int) -> list[dict[str, Any]]:
    rows = []
    for index, (image, attributes) in enumerate(draw(start, stop), start):
        name = f"{index:0{digits}d}.png"
        image.save(folder / name, compress_level=1)
        row: dict[str, Any] = {"file_name": name}
        for key, value in attributes.items():
            row[key] = value
            if isinstance(value, Image.Image):
                row[key] = f"{key.removesuffix('_file_name')}/{name}"
                (folder / row[key]).parent.mkdir(exist_ok=True)
                value.save(folder / row[key], compress_level=1)
        rows.append(row)
    return rows
