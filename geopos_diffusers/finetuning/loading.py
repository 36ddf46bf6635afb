"""The data of a run from its options, and its batches from any step on."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader

from ..errors import ConfigError, DataError
from ..training.batch_order import BatchOrder
from ..training.data_order import DataOrder, MixedStream, ShuffledStream, Stream
from ..training.interruption import ignore_ctrl_c
from .buckets import bucket_step
from .data_options import ImageDataArguments
from .image_text_data import ImageTextData
from .readable_images import readable
from .record_sources import open_records
from .records import Columns, JoinedRecords
from .streaming import StreamedData

logger = logging.getLogger(__name__)


class Members:
    """Some of the samples of a data set, in the order of a stream of their places among them."""

    def __init__(self, members: Sequence[int] | np.ndarray, stream: Stream) -> None:
        self.members, self.stream = members, stream

    def __getitem__(self, position: int) -> int:
        return int(self.members[self.stream[position]])


def load_data(
    args: ImageDataArguments, resolution: int, unit: int, accelerator: Accelerator, held_out: str | None = None
) -> ImageTextData | StreamedData:
    """The data that a run's options name, with captions if they have a column for them.

    Args:
        unit: pixels for one value of the model's coarsest feature map, which sizes of buckets are multiples of.
        held_out: another data set, prepared in the same way, in the place of those to train on.

    Raises:
        DataError: see `load_image_text`.
    """
    columns = Columns(
        args.image_column,
        getattr(args, "caption_column", None),
        args.crop_to,
        args.crop_box_format,
        args.mask_column,
        label=getattr(args, "class_column", None),
        conditioning=getattr(args, "conditioning_column", None),
        keypoints=getattr(args, "keypoints_column", None),
        frame=getattr(args, "frame_column", None),
    )
    if args.streaming and held_out is None:
        with accelerator.main_process_first():
            return StreamedData(
                args.dataset[0], resolution, columns, args.dataset_split, args.crop_margin, args.shuffle_buffer,
                args.seed, accelerator.process_index, accelerator.num_processes,
            )  # fmt: skip
    records, kept, parts = [], [], []
    # The first process fills the cache of a downloaded data set, the others read it.
    with accelerator.main_process_first():
        for dataset in args.dataset if held_out is None else [held_out]:
            limit = args.max_train_samples if held_out is None else None
            records.append(open_records(dataset, columns, args.dataset_split, limit))
            kept.append(readable(records[-1], dataset, accelerator.is_main_process))
            parts.append(len(kept[-1]))
        joined = records[0] if len(records) == 1 else JoinedRecords(records)
        step = bucket_step(resolution, unit) if args.aspect_ratio_buckets else None
        rows = kept[0] if len(kept) == 1 else join_kept(records, kept)
        weights = args.dataset_weights if held_out is None else None
        return ImageTextData(joined, rows, resolution, columns, args.crop_margin, step, parts, weights)


def join_kept(records: Sequence[Any], kept: Sequence[Sequence[int]]) -> Sequence[int]:
    """The rows to use of several data sets, one after the other."""
    starts = np.cumsum([0, *map(len, records)])
    if all(isinstance(rows, range) for rows in kept):
        return range(int(starts[-1]))
    return [int(start) + row for start, rows in zip(starts, kept, strict=False) for row in rows]


def data_facts(data: Any) -> dict[str, Any]:
    """What the terminal and summary.json say of boxes, masks, frames and buckets.

    Raises:
        DataError: there is a column for boxes, masks or frames, and no image has one.
    """
    facts: dict[str, Any] = {}
    if isinstance(data, StreamedData):
        return facts
    counted = data.count_fields()
    for kind, column in (("box", data.columns.box), ("mask", data.columns.mask), ("frame", data.columns.frame)):
        if column and counted[kind] == len(data):
            raise DataError(f"no image has a {kind}: none has a field {column!r}")
    if data.columns.box:
        facts["images_without_box"] = counted["box"]
    if data.columns.mask:
        facts["images_without_mask"] = counted["mask"]
    if data.columns.frame:
        facts["images_without_frame"] = counted["frame"]
    if data.buckets is not None:
        facts["buckets"] = data.buckets.counts()
    return facts


def build_batches(
    data: Any, args: ImageDataArguments, accelerator: Accelerator, first_step: int, steps: int
) -> Iterable[Any]:
    """Batches of this process from `first_step` to the end of a run of `steps`, on its device.

    The order is a function of the seed and the step alone; see `DataOrder`, `BatchOrder` and `StreamedData`.
    """
    options: dict[str, Any] = {
        "num_workers": args.num_workers,
        "worker_init_fn": ignore_ctrl_c,
        # Of its own, since starting to iterate would otherwise draw from the training's random numbers.
        "generator": torch.Generator(),
    }
    batches = args.gradient_accumulation_steps * accelerator.num_processes
    if isinstance(data, StreamedData):
        data.skip = first_step * args.gradient_accumulation_steps * args.train_batch_size
        return clear_errors(
            send_to_device(batch, accelerator.device) for batch in DataLoader(data, args.train_batch_size, **options)
        )
    if data.buckets is None:
        first, last = (step * batches * args.train_batch_size for step in (first_step, steps))
        order = DataOrder(len(data), first, last, args.seed, stream_of(data, range(len(data)), args.seed))
        loader = DataLoader(data, args.train_batch_size, sampler=order, **options)
    else:
        loader = DataLoader(data, batch_sampler=bucket_order(data, args, accelerator, first_step, steps), **options)
    return clear_errors(accelerator.prepare(loader))


def order_settings(data: Any, args: ImageDataArguments, accelerator: Accelerator) -> dict[str, int]:
    """What the order of the data depends on beside the samples of a step.

    Buckets make up a batch of all processes; a stream is divided among the processes.
    """
    if isinstance(data, StreamedData):
        return {"processes": accelerator.num_processes}
    if getattr(data, "buckets", None) is not None:
        return {"samples_at_once": args.train_batch_size * accelerator.num_processes}
    return {}


def stream_of(data: ImageTextData, members: Sequence[int] | np.ndarray, seed: int) -> Stream:
    """The endless order of some images, in the shares of the weights of their data sets."""
    if len(data.parts) == 1:
        stream: Stream = ShuffledStream(len(members), seed)
        return stream if isinstance(members, range) else Members(members, stream)
    sizes = part_sizes(data, members)
    present = [number for number, size in enumerate(sizes) if size]
    weights = data.weights or data.parts
    # A data set's share is that of its images which are members.
    own = [weights[number] * sizes[number] / data.parts[number] for number in present]
    return Members(members, MixedStream([sizes[number] for number in present], own, seed))


def part_sizes(data: ImageTextData, members: Sequence[int] | np.ndarray) -> list[int]:
    """How many members each data set has; members are in rising order."""
    edges = np.cumsum([0, *data.parts])
    places = edges if isinstance(members, range) else np.searchsorted(members, edges)
    return np.diff(places).tolist()


def bucket_order(
    data: ImageTextData, args: ImageDataArguments, accelerator: Accelerator, first_step: int, steps: int
) -> BatchOrder:
    """Batches of images of one size."""
    assert data.buckets is not None
    members = data.buckets.members()
    weights = np.array(data.weights or data.parts) / np.array(data.parts)
    shares = [float(np.dot(part_sizes(data, own), weights)) for own in members.values()]
    together = args.train_batch_size * accelerator.num_processes
    if few := sum(len(own) for own in members.values() if len(own) < together):
        logger.warning("%d images are in buckets of fewer than %d images: their batches repeat some", few, together)
    streams = [stream_of(data, own, args.seed + bucket + 1) for bucket, own in members.items()]
    first, last = (step * args.gradient_accumulation_steps for step in (first_step, steps))
    return BatchOrder(streams, shares, args.train_batch_size, accelerator.num_processes, first, last, args.seed)


def clear_errors(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches; an error in a process that reads images is raised as one line, without that process's traceback."""
    try:
        yield from batches
    except DataError as error:
        raise DataError(str(error).strip().splitlines()[-1].partition("DataError: ")[2] or str(error)) from error


def check_size(resolution: int, factor: int) -> None:
    """Raise ConfigError unless the autoencoder can encode images of this side."""
    if resolution % factor:
        raise ConfigError(f"size must be a multiple of {factor} for this model; got {resolution}")
