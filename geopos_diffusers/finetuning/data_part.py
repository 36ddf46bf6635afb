"""A part of a data set: what is trained on, what is held out, a few images of many."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..errors import ConfigError


class DataPart(Dataset):
    """The items of `data` at `indices` [N], with the attributes that the engine reads of a data set.

    name: what tells this part's fingerprint from those of others.
    """

    def __init__(self, data: Any, indices: np.ndarray, name: str) -> None:
        self.data, self.indices, self.name = data, indices, name
        self.resolution, self.skipped = data.resolution, data.skipped

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.data[int(self.indices[index])]

    @property
    def captions(self) -> Sequence[str]:
        return _Captions(self.data.captions, self.indices)

    def fingerprint(self) -> str:
        return f"{self.data.fingerprint()}-{self.name}"


class _Captions(Sequence):
    """Of a part, read when needed."""

    def __init__(self, captions: Sequence[str], indices: np.ndarray) -> None:
        self._captions, self._indices = captions, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Captions(self._captions, self._indices[index])
        return self._captions[int(self._indices[index])]


def held_out(count: int, share: float) -> np.ndarray:
    """[count] bool: which items are held out, by a hash of their number. More items at the end change none before.

    Raises:
        ConfigError: it is none or all of them.
    """
    # splitmix64, whose values are spread evenly over 64 bits.
    with np.errstate(over="ignore"):
        mixed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    chosen = mixed.astype(np.float64) / 2.0**64 < share
    if not chosen.any() or chosen.all():
        number = int(chosen.sum())
        raise ConfigError(f"validation_split_share {share:g} holds out {number} of {count} images; give another share")
    return chosen


def split_data(data: Any, share: float) -> tuple[DataPart, DataPart]:
    """What is trained on and what is held out. Raises ConfigError where one of them would be empty."""
    chosen = held_out(len(data), share)
    name = f"{share:g}"
    return DataPart(data, np.flatnonzero(~chosen), f"without {name}"), DataPart(data, np.flatnonzero(chosen), name)


def evenly_spaced(data: Any, limit: int) -> Any:
    """At most `limit` items out of all of `data`."""
    count = min(limit, len(data))
    return DataPart(data, np.arange(count) * len(data) // count, f"{count} evenly")
