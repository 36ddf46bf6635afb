"""Images with captions from a folder, Parquet files or a Hub data set, as tensors that a diffusion model trains on.

Images are decoded when they are asked for. Memory does not grow with their number, but for 8 bytes a row of a folder.
"""

import hashlib
import json
import logging
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ..errors import DataError
from ..images.opening import image_size, open_image
from .buckets import Buckets
from .conditioning import read_conditioning
from .framing import box_in_crop, cut_out, grown_box, image_tensor, lies_outside
from .masks import read_mask
from .readable_images import FEW, UNREADABLE_SHARE, evenly_spaced, readable
from .record_sources import open_records
from .records import Captions, Columns, Record, Records

logger = logging.getLogger(__name__)
COMPARED_IMAGES = 64  # without captions: by these a continued run sees that the data are the same
USUAL_COLUMNS = (("image", None), ("image", "conditioning_image"))  # of images and conditioning images
SOME_CAPTIONS = 10_000
SHOWN_FROM = 10_000  # images whose sizes take long enough to find for a progress bar
Size = tuple[int, int]


class ImageTextData(Dataset):
    """Pairs of an image and its caption.

    Item i is {"pixels": [3, H, W] float32 in [-1, 1], "caption": str, "sizes": [6] (original height and width, crop top
    and left, H, W; in pixels), "row": int (which image it is)} and, where there is a column of masks, "mask": [1, H, W]
    float32 in [0, 1]; of conditioning images, "conditioning": [3, H, W] float32 in [0, 1]; of frames, "box": [4]
    float32, see `framing.box_in_crop`.

    An image that cannot be read, or whose mask or conditioning image cannot, is replaced by the next one that can, with
    its caption and at the same size: what an item is depends on its index and the files alone.

    Args:
        records: the whole data set. kept: which of its rows to use, in this order.
        resolution: S; the shorter side is scaled to it (bicubic, antialiased) and the centre, S x S, is cut out.
        columns: what the rows hold. margin: with boxes, the space around them; see `framing.frame_box`.
        bucket_step: with it, sizes are those of aspect-ratio buckets, whose sides are its multiples.
        parts: how many of the images belong to each of several data sets, which lie one after the other. weights:
            their shares in a training; by default their numbers of images.
    """

    def __init__(
        self,
        records: Records,
        kept: Sequence[int],
        resolution: int,
        columns: Columns | None = None,
        margin: float = 0.5,
        bucket_step: int | None = None,
        parts: Sequence[int] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.parts, self.weights = parts or [len(kept)], weights
        self.records, self.kept, self.resolution, self.margin = records, kept, resolution, margin
        self.columns, self.bucket_step = columns or Columns(), bucket_step
        self.captions = Captions(records, kept)
        self.skipped = len(records) - len(kept)
        self.buckets = None
        if bucket_step is not None:
            rows = tqdm(kept, "sizes of images", leave=False, disable=len(kept) < SHOWN_FROM)
            self.buckets = Buckets(resolution, bucket_step, map(self._shape, rows))
        self._read, self._replaced = 0, set[str]()

    def __len__(self) -> int:
        return len(self.kept)

    def part(self, indices: np.ndarray) -> "ImageTextData":
        """These items alone, given in rising order, with 8 bytes for each."""
        kept = array("q", (self.kept[index] for index in indices.tolist()))
        parts = np.diff(np.searchsorted(indices, np.cumsum([0, *self.parts]))).tolist()
        part = ImageTextData(
            self.records, kept, self.resolution, self.columns, self.margin, self.bucket_step, parts, self.weights
        )
        part.skipped = self.skipped
        return part

    def size_of(self, index: int) -> Size:
        """Height and width of an item."""
        return (self.resolution, self.resolution) if self.buckets is None else self.buckets.size_of(index)

    def fingerprint(self) -> str:
        """A digest of the captions, boxes, masks and classes, and of which images are used: equal wherever they lie.

        The names of image columns count where they are not the usual ones.
        Of images without captions some are decoded for it.
        """
        digest = hashlib.sha256()
        # The JSON of [resolution, kept, captions], piece by piece.
        digest.update(f"[{self.resolution}, ".encode())
        _add_list(digest, self.kept, str)
        digest.update(b", ")
        _add_list(digest, self.captions, json.dumps)
        digest.update(b"]")
        columns = self.columns
        if (columns.image, columns.conditioning) not in USUAL_COLUMNS:
            digest.update(json.dumps([columns.image, columns.conditioning]).encode())
        if columns.box or columns.mask or self.buckets:
            digest.update(json.dumps([self.margin if columns.box else None, columns.mask is not None]).encode())
            for index in self.kept if columns.box or columns.mask else ():
                record = self.records[index]
                digest.update(json.dumps([record.box, record.mask is not None]).encode())
        if self.buckets:
            digest.update(self.buckets.assigned.tobytes())
        if columns.frame:
            digest.update(json.dumps([self.records[index].framed for index in self.kept]).encode())
        if columns.label:
            digest.update(json.dumps([self.records[index].label for index in self.kept]).encode())
        for place in evenly_spaced(len(self), COMPARED_IMAGES) if columns.caption is None else ():
            digest.update(self.item(place, (8, 8))["pixels"].numpy().tobytes())
        return digest.hexdigest()[:16]

    def count_fields(self) -> dict[str, int]:
        """How many images have no box, how many no mask and how many no frame."""
        missing, columns = {"box": 0, "mask": 0, "frame": 0}, self.columns
        for index in self.kept if columns.box or columns.mask or columns.frame else ():
            record = self.records[index]
            missing["frame"] += record.framed is None
            missing["box"] += record.box is None
            missing["mask"] += record.mask is None
        return missing

    def sample(self, count: int) -> Iterator[dict[str, Any]]:
        """Up to `count` items, evenly spaced."""
        return (self[index] for index in evenly_spaced(len(self), count))

    def some_captions(self) -> list[str]:
        """Up to 10,000 captions, evenly spaced."""
        return [self.captions[index] for index in evenly_spaced(len(self), SOME_CAPTIONS)]

    def _shape(self, row: int) -> tuple[float, float]:
        """Width and height of what is to be seen of a record; 1 x 1 where its image cannot be read."""
        record = self.records[row]
        try:
            original = record.size or image_size(record.image)
        except DataError:
            return 1.0, 1.0
        if record.box is None or lies_outside(original, record.box):
            return original
        return grown_box(original, record.box, self.margin)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.item(index, self.size_of(index))

    def item(self, index: int, size: Size) -> dict[str, Any]:
        """Item `index`, or the next that can be read, at `size`.

        Raises:
            DataError: too many images cannot be read.
        """
        self._read += 1
        for number in range(len(self)):
            row = (index + number) % len(self)
            record = self.records[self.kept[row]]
            try:
                return self._item(record, size) | {"row": row}
            except (DataError, ValueError, MemoryError) as error:
                self._note_unreadable(record, error)
        raise DataError("no image can be read any more")

    def _item(self, record: Record, size: Size) -> dict[str, Any]:
        image = open_image(record.image)
        frame = record.frame(image.size, size, self.margin)
        item = {"pixels": image_tensor(cut_out(image, frame)), "caption": record.caption, "sizes": frame.numbers}
        if self.columns.mask:
            item["mask"] = read_mask(record, image.size, frame)
        if self.columns.label:
            item["label"] = record.label
        if self.columns.conditioning:
            item["conditioning"] = read_conditioning(record, image.size, frame)
        if self.columns.frame:
            item["box"] = box_in_crop(frame, record.framed)
        return item

    def conditioning(self, index: int, sizes: Tensor) -> Tensor:
        """The conditioning image [3, H, W] of an item whose six numbers are known, without decoding its image."""
        record = self.records[self.kept[index]]
        height, width, _, _, rows, columns = (int(value) for value in sizes)
        frame = record.frame((width, height), (rows, columns), self.margin)
        return read_conditioning(record, (width, height), frame)

    def keypoints(self, index: int, sizes: Tensor) -> list[list[float]]:
        """The 21 key points [x, y] of an item whose six numbers are known, in pixels of what is cut out."""
        record = self.records[self.kept[index]]
        height, width, top, left, rows, columns = (int(value) for value in sizes)
        frame = record.frame((width, height), (rows, columns), self.margin)
        across, down = frame.scaled[0] / width, frame.scaled[1] / height
        return [[x * across - left, y * down - top] for x, y in record.keypoints or []]

    def mask(self, index: int, sizes: Tensor) -> Tensor:
        """The mask [1, H, W] of an item whose six numbers are known, without decoding its image."""
        record = self.records[self.kept[index]]
        height, width, _, _, rows, columns = (int(value) for value in sizes)
        frame = record.frame((width, height), (rows, columns), self.margin)
        return read_mask(record, (width, height), frame)

    def box(self, index: int, sizes: Tensor) -> Tensor:
        """The box [4] of an item whose six numbers are known, without decoding its image."""
        record = self.records[self.kept[index]]
        height, width, _, _, rows, columns = (int(value) for value in sizes)
        return box_in_crop(record.frame((width, height), (rows, columns), self.margin), record.framed)

    def some_boxes(self) -> list[Tensor]:
        """Boxes [4] of up to 10,000 items, evenly spaced; of images that cannot be read, none."""
        boxes = []
        for index in evenly_spaced(len(self), SOME_CAPTIONS):
            record = self.records[self.kept[index]]
            try:
                frame = record.frame(record.size or image_size(record.image), self.size_of(index), self.margin)
            except DataError:
                continue
            boxes.append(box_in_crop(frame, record.framed))
        return boxes

    def content_digest(self, index: int) -> bytes:
        """A digest of what an item's pixels are made from: the encoded image, and how it is cut out and scaled."""
        self._read += 1
        record = self.records[self.kept[index]]
        text = json.dumps([record.box, self.margin if record.box else None, self.size_of(index)])
        digest = hashlib.sha256(text.encode())
        source = record.image
        if isinstance(source, dict):
            source = source.get("bytes") or source.get("path")
        try:
            digest.update(source if isinstance(source, bytes) else Path(source).read_bytes())
        except (OSError, TypeError) as error:
            self._note_unreadable(record, error)
        return digest.digest()

    def _note_unreadable(self, record: Record, error: Exception) -> None:
        if record.name not in self._replaced:
            logger.warning("replaced by the next image: %s (%s)", record.name, str(error) or type(error).__name__)
            self._replaced.add(record.name)
        if len(self._replaced) > max(FEW, UNREADABLE_SHARE * self._read):
            count = f"{len(self._replaced)} of the first {self._read} images"
            raise DataError(f"{count} cannot be read, the last {record.name} ({error})") from error


def load_image_text(
    dataset: str,
    resolution: int,
    image_column: str = "image",
    caption_column: str = "text",
    split: str = "train",
    limit: int | None = None,
    show_progress: bool = True,
    columns: Columns | None = None,
    margin: float = 0.5,
    bucket_step: int | None = None,
) -> ImageTextData:
    """Load the data set that `dataset` names: an image folder, Parquet files, or the id of a data set on the Hub.

    Up to 2,000 images, which are all of a small data set, are decoded once. Of a small one those that cannot be are
    left out, with a warning that names them.

    Args:
        limit: use the first rows only.
        columns: those of boxes and masks too, in the place of the two others.
        margin, bucket_step: see `ImageTextData`.

    Raises:
        DataError: no such data, no captions, a column that does not exist, or no image that can be read; of a large
            data set, more than 5% that cannot be.
    """
    columns = columns or Columns(image_column, caption_column)
    records = open_records(dataset, columns, split, limit)
    kept = readable(records, dataset, show_progress)
    return ImageTextData(records, kept, resolution, columns, margin, bucket_step)


def _add_list(digest: Any, values: Iterable[Any], text: Callable[[Any], str]) -> None:
    """Add the JSON of a list to a digest."""
    separator = "["
    for value in values:
        digest.update(f"{separator}{text(value)}".encode())
        separator = ", "
    digest.update(b"]")
