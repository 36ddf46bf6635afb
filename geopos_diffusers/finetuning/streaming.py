"""Images with captions that are read one after the other, from files too many to look at before: tars, Parquet, Hub."""

import hashlib
import json
import logging
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import IterableDataset

from ..errors import DataError
from ..images.metadata import METADATA
from ..images.opening import open_image
from ..optional_packages import optional_import
from .framing import box_in_crop, cut_out, image_tensor
from .masks import read_mask
from .readable_images import FEW, UNREADABLE_SHARE
from .records import Columns, Record, checked_box, checked_caption, checked_frame

logger = logging.getLogger(__name__)
SAMPLE = 256  # images at the beginning that stand for all where the data are looked at before training
# What the files of a sample are called in WebDataset's tars, where no column of the asked name exists.
TAR_IMAGES, TAR_CAPTIONS = ("jpg", "jpeg", "png", "webp"), ("txt", "text", "caption")


class StreamedData(IterableDataset):
    """Endless items of one process, {"pixels", "caption", "sizes"} as those of `ImageTextData`.

    Each pass has the files in another order, and within them the samples of a buffer of `buffer` are shuffled: both are
    functions of the seed and the pass. What item p is does not depend on where reading began: `skip` samples are read
    and passed over, undecoded. An image that cannot be read is replaced by the next one.

    Args:
        dataset: a folder of .tar (WebDataset) or .parquet files, one such file, or the id of a data set on the Hub.
        process, processes: this one and how many share the stream.

    Raises:
        DataError: no such data, or a column that does not exist.
    """

    skipped = 0
    buckets = None

    def __init__(
        self,
        dataset: str,
        resolution: int,
        columns: Columns,
        split: str = "train",
        margin: float = 0.5,
        buffer: int = 1000,
        seed: int = 0,
        process: int = 0,
        processes: int = 1,
        skip: int = 0,
    ) -> None:
        self.dataset, self.resolution, self.margin = dataset, resolution, margin
        self.buffer, self.seed, self.skip, self.split = buffer, seed, skip, split
        self.process, self.processes = process, processes
        self.files = find_files(dataset)
        self.stream = open_stream(dataset, self.files, split)
        self.columns = found_columns(dataset, columns, self.stream)
        self._read, self._unreadable, self._named = 0, 0, set[str]()

    def some_captions(self) -> list[str]:
        """Those of the first samples."""
        return [record.caption for _, record in zip(range(SAMPLE), self._pass(self.stream), strict=False)]

    def sample(self, size: int) -> Iterator[dict[str, Any]]:
        """The first items in the order of the files."""
        return islice(self._items(self._pass(self.stream)), size)

    def some_boxes(self) -> list[Tensor]:
        """Boxes [4] of the first samples."""
        return [item["box"] for item in self.sample(SAMPLE)]

    def fingerprint(self) -> str:
        """A digest of the names and sizes of the files, or of the data set's id."""
        files = [[Path(file).name, Path(file).stat().st_size] for file in self.files or []]
        named: list[Any] = files or [self.dataset, self.split]
        columns = self.columns
        kinds = [columns.image, columns.caption, columns.box, columns.mask, self.margin if columns.box else None]
        kinds += [columns.frame] if columns.frame else []
        return hashlib.sha256(json.dumps([self.resolution, named, kinds, self.buffer]).encode()).hexdigest()[:16]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._items(islice(self._records(), self.skip, None))

    def _records(self) -> Iterator[Record]:
        from datasets.distributed import split_dataset_by_node

        shuffled = self.stream.shuffle(seed=self.seed, buffer_size=self.buffer)
        own = split_dataset_by_node(shuffled, self.process, self.processes)
        for epoch in count():
            own.set_epoch(epoch)
            number = -1
            for number, record in enumerate(self._pass(own)):  # noqa: B007
                yield record
            if number < 0:
                raise DataError(f"{self.dataset} holds no samples for process {self.process} of {self.processes}")

    def _pass(self, stream: Any) -> Iterator[Record]:
        columns = self.columns
        for number, row in enumerate(stream):
            place = f"{self.dataset}, {row.get('__key__') or _file_of(row[columns.image]) or f'sample {number}'}"
            yield Record(
                row[columns.image],
                checked_caption(row, columns.caption, place),
                place,
                checked_box(row, columns, place),
                row[columns.mask] if columns.mask else None,
                framed=checked_frame(row, columns, place),
            )

    def _items(self, records: Iterator[Record]) -> Iterator[dict[str, Any]]:
        waiting = 1
        for record in records:
            self._read += 1
            try:
                item = self._item(record)
            except (DataError, ValueError, MemoryError) as error:
                self._note_unreadable(record, error)
                waiting += 1
                continue
            for _ in range(waiting):
                yield item
            waiting = 1

    def _item(self, record: Record) -> dict[str, Any]:
        image = open_image(record.image)
        frame = record.frame(image.size, (self.resolution, self.resolution), self.margin)
        item = {"pixels": image_tensor(cut_out(image, frame)), "caption": record.caption, "sizes": frame.numbers}
        if self.columns.frame:
            item["box"] = box_in_crop(frame, record.framed)
        return item | ({"mask": read_mask(record, image.size, frame)} if self.columns.mask else {})

    def _note_unreadable(self, record: Record, error: Exception) -> None:
        self._unreadable += 1
        if record.name not in self._named:
            logger.warning("replaced by the next image: %s (%s)", record.name, str(error) or type(error).__name__)
            self._named.add(record.name)
        if self._unreadable > max(FEW, UNREADABLE_SHARE * self._read):
            seen = f"{self._unreadable} of the first {self._read} images"
            raise DataError(f"{seen} cannot be read, the last {record.name} ({error})") from error


def _file_of(image: Any) -> str | None:
    return image.get("path") if isinstance(image, dict) else None


def find_files(dataset: str) -> list[str] | None:
    """The files of local data, in order; None for a data set of the Hub.

    Raises:
        DataError: there is nothing to stream.
    """
    path = Path(dataset)
    if path.is_file() and path.suffix in (".tar", ".parquet"):
        return [dataset]
    if path.is_dir():
        for suffix in ("tar", "parquet"):
            if files := sorted(map(str, path.rglob(f"*.{suffix}"))):
                return files
        if (path / METADATA).is_file():
            raise DataError(f"{dataset} is an image folder, which is read on demand; leave out streaming")
        raise DataError(f"{dataset} holds no .tar or .parquet files to stream")
    if path.exists() or path.is_absolute() or dataset.startswith(".") or dataset.count("/") != 1:
        raise DataError(f"no folder of .tar or .parquet files {dataset} (a data set of the Hub is given as owner/name)")
    return None


def open_stream(dataset: str, files: list[str] | None, split: str) -> Any:
    """The samples of a data set as `datasets` streams them, images undecoded."""
    with optional_import("streaming", "train"):
        import datasets

    try:
        if files is None:
            stream = datasets.load_dataset(dataset, split=split, streaming=True)
        else:
            kind = "webdataset" if files[0].endswith(".tar") else "parquet"
            stream = datasets.load_dataset(kind, data_files=files, split="train", streaming=True)
        return stream.decode(False) if stream.features is not None else stream
    except Exception as error:  # datasets raises many kinds, from its own to tarfile's and the network's
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise DataError(f"{dataset} cannot be streamed: {type(error).__name__}: {reason}") from error


def found_columns(dataset: str, columns: Columns, stream: Any) -> Columns:
    """The columns, with WebDataset's usual names where those that were asked for are missing.

    Raises:
        DataError: one is missing all the same.
    """
    names = stream.column_names or list(next(iter(stream)))

    def found(wanted: str, usual: tuple[str, ...] = ()) -> str:
        name = wanted if wanted in names else next((name for name in usual if name in names), None)
        if name is None:
            raise DataError(f"{dataset} has no column {wanted!r}; found {', '.join(names)}")
        return name

    caption = None if columns.caption is None else found(columns.caption, TAR_CAPTIONS)
    box, mask, frame = (column and found(column) for column in (columns.box, columns.mask, columns.frame))
    return Columns(found(columns.image, TAR_IMAGES), caption, box, columns.box_format, mask, frame=frame)
