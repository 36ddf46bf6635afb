"""Tensors of the items of a data set, kept on the disk in safetensors files of 1,024 items each.

A file is named after all that its tensors are computed from. So a file that is there is never computed again, after a
kill or by another run; and processes that write the same file at once write the same bytes, each whole or not at all.
"""

import hashlib
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import DataError
from ..files import atomic_path

SHARD_ITEMS = 1024
OPEN_SHARDS = 16  # files that a process holds open
Item = dict[str, Tensor]


class TensorShards:
    """Reads the items of a list of shards: item i is number i % 1024 of file i // 1024. Tensors are copies.

    Raises:
        DataError: a file is missing or damaged.
    """

    def __init__(self, files: Sequence[Path], names: Sequence[str]) -> None:
        self.files, self.names = files, names
        self._open: OrderedDict[Path, tuple[Any, Tensor, Tensor]] = OrderedDict()

    def __getitem__(self, index: int) -> Item:
        file = self.files[index // SHARD_ITEMS]
        stored, places, checksums = self._shard(file)
        place = int(places[index % SHARD_ITEMS])
        item = {name: stored.get_tensor(f"{place}.{name}").clone() for name in self.names}
        if checksum(item) != checksums[place]:
            raise DataError(f"{file} is damaged (item {place}); remove it to have it made anew")
        return item

    def _shard(self, file: Path) -> tuple[Any, Tensor, Tensor]:
        if file not in self._open:
            stored = open_shard(file)
            self._open[file] = (stored, stored.get_tensor("places").clone(), stored.get_tensor("checksums").clone())
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(file)
        return self._open[file]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}  # open files do not go to other processes


def make_shards(
    folder: Path,
    kind: str,
    size: int,
    settings: str,
    digest: Callable[[int], bytes],
    compute: Callable[[range], tuple[Sequence[int], Iterable[Item]]],
    accelerator: Accelerator,
) -> list[Path]:
    """Compute the shards of `size` items that are not there yet; several processes share the work.

    All processes must call it, and all get all files.

    Args:
        kind: what the files' names begin with. settings: what all items depend on. digest(i): what item i depends on.
        compute(range of items): tensors by name of each distinct one, and of which of those each item is.
    """
    ranges = [range(start, min(start + SHARD_ITEMS, size)) for start in range(0, size, SHARD_ITEMS)]
    mine = range(accelerator.process_index, len(ranges), accelerator.num_processes)
    made = []
    with torch.no_grad():
        for number in tqdm(mine, f"{kind} on the disk", disable=not accelerator.is_main_process, leave=False):
            key = hashlib.sha256(settings.encode())
            for index in ranges[number]:
                key.update(digest(index))
            file = folder / f"{kind}-{key.hexdigest()[:32]}.safetensors"
            if file.is_file():
                open_shard(file)
            else:
                write_shard(file, *compute(ranges[number]))
            made.append((number, str(file)))
    files = dict(gather_object(made) if accelerator.num_processes > 1 else made)
    return [Path(files[number]) for number in range(len(ranges))]


def open_shard(file: Path) -> Any:
    """Open a shard. Raises DataError if it is missing or damaged."""
    try:
        return safe_open(file, "pt")
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file} is damaged ({error}); remove it to have it made anew") from error


def write_shard(file: Path, places: Sequence[int], items: Iterable[Item]) -> None:
    """Write a shard whole or not at all. places: for each item which of `items` it is."""
    tensors: Item = {}
    checksums = []
    for number, item in enumerate(items):
        tensors |= {f"{number}.{name}": value.contiguous().cpu() for name, value in item.items()}
        checksums.append(checksum(item))
    tensors |= {"places": torch.tensor(places), "checksums": torch.tensor(checksums)}
    with atomic_path(file) as temporary:
        save_file(tensors, temporary)


def checksum(item: Item) -> int:
    """CRC-32 of an item's tensors."""
    value = 0
    for name in sorted(item):
        value = zlib.crc32(as_bytes(item[name]), value)
    return value


def as_bytes(tensor: Tensor) -> Any:
    """The bytes of a tensor as an array."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def weights_digest(*modules: nn.Module) -> str:
    """A digest of the names, types and values of the weights of models."""
    digest = hashlib.sha256()
    for module in modules:
        for name, value in sorted(module.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(as_bytes(value))
    return digest.hexdigest()
