"""Scores folders of images on all cores, keeping what is computed as it goes."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext

import numpy as np
from tqdm import tqdm

from ..errors import DataError
from .evaluation_cache import EvaluationCache
from .image_folder import FolderImage, ImageFolder
from .image_scoring import (
    HANDS,
    JUDGEMENT,
    ImageScorer,
    ImageTask,
    ScoringSettings,
    crop_part,
    decode_features,
    decode_hands,
    decode_judgement,
    image_part,
)
from .records import ScoredFolder, ScoredImage
from .wheel_files import file_sha256

BATCH = 16
BATCHES_AHEAD = 3  # for each worker: enough that none waits, few enough that memory does not grow with the folder
SMALLEST_FOR_WORKERS = 64  # images, below which starting processes takes longer than it saves

_scorer: ImageScorer | None = None  # of this worker process


def score_folders(
    folders: Sequence[tuple[str, ImageFolder]],
    settings: ScoringSettings,
    *,
    cache: EvaluationCache,
    num_workers: int | None = None,
    progress: bool = True,
    scorer: ImageScorer | None = None,
) -> list[ScoredFolder]:
    """Score the images of (name, folder) pairs. An image that occurs in several of them is scored once.

    Args:
        cache: what it holds is not computed again; what is computed is written into it, batch by batch.
        num_workers: processes; by default one a core. 1 works in this process.
        progress: show a progress bar on standard error.
        scorer: does the work in this process, in the place of new ones, and keeps its networks for the next call.

    Unreadable images are left out and listed in `skipped`.

    Raises:
        DataError: a folder without a readable image, or a worker process that died.
        MissingDependencyError: a model or package is missing.
    """
    components = settings.components
    hashed = [list(_hashes(folder)) for _, folder in folders]
    tasks = _missing(components, hashed, cache)
    unreadable: dict[str, str] = {}
    total = len({sha for rows in hashed for _, sha in rows if sha})
    with tqdm(total=total, initial=total - len(tasks), unit="image", disable=not progress) as bar:
        for batch, results in _run(tasks, settings, num_workers or os.cpu_count() or 1, scorer):
            rows = []
            for task, result in zip(batch, results, strict=True):
                if isinstance(result, str):
                    unreadable[task.sha256] = result
                else:
                    rows += [(components[part], task.sha256, value) for part, value in result.items()]
            cache.write(rows)
            bar.update(len(batch))
    return [
        _collect(name, folder, rows, unreadable, components, settings, cache)
        for (name, folder), rows in zip(folders, hashed, strict=True)
    ]


def _hashes(folder: ImageFolder) -> Iterator[tuple[FolderImage, str | None]]:
    for source in folder.entries:
        try:
            yield source, file_sha256(source.path)
        except OSError:
            yield source, None


def _missing(
    components: dict[str, str], hashed: list[list[tuple[FolderImage, str | None]]], cache: EvaluationCache
) -> list[ImageTask]:
    """The images of which a part is not in the cache, each once."""
    paths = {sha: source.path for rows in hashed for source, sha in rows if sha}
    keys = list(paths)
    hands = cache.read(components[HANDS], keys)
    # Of features the keys alone are held: those of a large folder take much memory.
    known = {part: set(cache.read(component, keys)) for part, component in components.items() if part != HANDS}
    known[HANDS] = set(hands)
    tasks = []
    for sha, path in paths.items():
        if wanted := tuple(part for part in components if sha not in known[part]):
            tasks.append(ImageTask(path, sha, wanted, {HANDS: hands[sha]} if sha in hands else {}))
    return tasks


def _run(
    tasks: list[ImageTask], settings: ScoringSettings, num_workers: int, scorer: ImageScorer | None = None
) -> Iterator[tuple[list[ImageTask], list[dict[str, bytes] | str]]]:
    """Yield each batch with its results, as they are done."""
    batches = [tasks[start : start + BATCH] for start in range(0, len(tasks), BATCH)]
    if scorer is not None or num_workers == 1 or len(tasks) < SMALLEST_FOR_WORKERS:
        with ImageScorer(settings) if scorer is None else nullcontext(scorer) as own:
            for batch in batches:
                yield batch, own.score(batch)
        return
    # Fresh processes: a forked one would inherit locks of MediaPipe's and torch's threads.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(min(num_workers, len(batches)), mp_context=context, initializer=_prepare_worker)
    running: dict[Future, list[ImageTask]] = {}
    waiting = iter(batches)
    try:
        for batch in waiting:
            running[executor.submit(_score_in_worker, settings, batch)] = batch
            if len(running) < BATCHES_AHEAD * num_workers:
                continue
            yield from _finished(running)
        while running:
            yield from _finished(running)
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process ended early (out of memory?); what was scored is kept, so run it again, with fewer "
            "--num-workers"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _finished(running: dict[Future, list[ImageTask]]) -> Iterator[tuple[list[ImageTask], list[dict[str, bytes] | str]]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        yield running.pop(future), future.result()


def _prepare_worker() -> None:
    import torch

    torch.set_num_threads(1)
    # Ctrl-C reaches the whole process group: the parent alone reacts and cancels the rest.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _score_in_worker(settings: ScoringSettings, batch: list[ImageTask]) -> list[dict[str, bytes] | str]:
    global _scorer
    if _scorer is None:
        _scorer = ImageScorer(settings)
    return _scorer.score(batch)


def _collect(
    name: str,
    folder: ImageFolder,
    rows: list[tuple[FolderImage, str | None]],
    unreadable: dict[str, str],
    components: dict[str, str],
    settings: ScoringSettings,
    cache: EvaluationCache,
) -> ScoredFolder:
    """The scores of a folder out of the cache."""
    keys = [sha for _, sha in rows if sha and sha not in unreadable]
    hands = cache.read(components[HANDS], keys)
    judged = cache.read(components[JUDGEMENT], keys) if JUDGEMENT in components else {}
    entries: list[ScoredImage] = []
    skipped: list[tuple[str, str]] = []
    for source, sha in rows:
        if sha is None or sha in unreadable:
            reason = "the file cannot be read" if sha is None else unreadable[sha]
            skipped.append((source.name, reason))
            continue
        size, found = decode_hands(hands[sha])
        entries.append(ScoredImage(source, size, sha, found, decode_judgement(judged[sha]) if sha in judged else None))
    if not entries:
        first, reason = skipped[0]
        raise DataError(f"{folder.path}: none of its {len(skipped)} images can be read (first: {first}, {reason})")
    features, crops = {}, {}
    order = [entry.sha256 for entry in entries]
    crop_index = np.array([index for index, entry in enumerate(entries) if entry.hands], dtype=np.int64)
    for extractor_name in settings.identities:
        whole = cache.read(components[image_part(extractor_name)], keys)
        features[extractor_name] = np.stack([decode_features(whole[sha]) for sha in order])
        cropped = cache.read(components[crop_part(extractor_name)], keys)
        parts = [decode_features(cropped[order[index]]) for index in crop_index]
        width = features[extractor_name].shape[1]
        crops[extractor_name] = np.stack(parts) if parts else np.empty((0, width), np.float32)
    return ScoredFolder(name, folder, tuple(entries), tuple(skipped), features, crops, crop_index)
