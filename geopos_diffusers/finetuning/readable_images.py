"""Which images of a data set can be read, as far as that is looked at before a training."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from ..errors import DataError
from ..images.opening import open_image
from .conditioning import read_conditioning
from .framing import frame_centre
from .masks import read_mask
from .records import Records

logger = logging.getLogger(__name__)
CHECKED_IMAGES = 2000  # decoded before the first step: all of a small data set, evenly spaced ones of a large one
UNREADABLE_SHARE = 0.05  # of a large data set's images, above which a run stops
FEW = 20  # unreadable images that never stop one


def readable(records: Records, dataset: str, show_progress: bool = True) -> Sequence[int]:
    """Which records to use: of a small data set those that can be decoded, of a large one all.

    Raises:
        DataError: as `load_image_text`.
    """
    if not len(records):
        raise DataError(f"{dataset} holds no images with captions")
    checked = evenly_spaced(len(records), CHECKED_IMAGES)
    small = len(checked) == len(records)
    problems = find_unreadable(records, checked, show_progress)
    for index, reason in problems.items():
        logger.warning("%s: %s (%s)", "left out" if small else "cannot be read", records[index].name, reason)
    first = next(iter(problems.items()), None)
    if first and len(problems) > (len(checked) - 1 if small else UNREADABLE_SHARE * len(checked)):
        share = (
            f"none of {len(checked)}" if small else f"of {len(checked)} looked at only {len(checked) - len(problems)}"
        )
        raise DataError(f"{dataset}: {share} images can be read; the first: {records[first[0]].name} ({first[1]})")
    if not small:
        return range(len(records))
    if problems:
        logger.warning("%d of %d images cannot be read and are left out", len(problems), len(records))
    return [index for index in range(len(records)) if index not in problems]


def find_unreadable(records: Records, indices: Sequence[int], show_progress: bool = True) -> dict[int, str]:
    """Decode some of the images once, with their masks and conditions.

    Returns:
        The index of each that cannot be read, and the reason.
    """

    def problem(index: int) -> str | None:
        try:
            record = records[index]
            original = open_image(record.image).size
            frame = frame_centre(original, (8, 8))
            if record.mask is not None:
                read_mask(record, original, frame)
            if record.conditioning is not None:
                read_conditioning(record, original, frame)
        except (DataError, ValueError, MemoryError) as error:
            return str(error) or type(error).__name__
        return None

    with ThreadPoolExecutor(max_workers=4) as pool:
        reasons = pool.map(problem, indices)
        shown = tqdm(reasons, total=len(indices), desc="checking images", disable=not show_progress, leave=False)
        return {index: reason for index, reason in zip(indices, shown, strict=True) if reason is not None}


def evenly_spaced(size: int, count: int) -> Sequence[int]:
    """Up to `count` of the numbers below `size`."""
    return range(size) if size <= count else [number * size // count for number in range(count)]
