"""The order in which samples are seen: a function of seed and position alone, so that a run can be continued."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Sampler

from .permutation import permuted

# Samples whose whole order is drawn at once, 8 bytes each; the order of more is computed position by position.
LARGEST_DRAWN = 2**20
MIXED = 1000  # positions in which several data sets have their shares exactly, rounded to whole samples


class Stream(Protocol):
    """An endless sequence of samples."""

    def __getitem__(self, position: int) -> int: ...


class ShuffledStream:
    """One shuffled pass over `size` samples after the other. Position p belongs to pass p // size."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self._epoch, self._order = -1, torch.empty(0)

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, self.size)
        if self.size > LARGEST_DRAWN:
            return permuted(place, self.size, _epoch_seed(self.seed, epoch))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, _drawn_order(self.size, epoch, self.seed)
        return int(self._order[place])


class MixedStream:
    """Samples of several data sets that lie one after the other, in the shares of their weights.

    Of every 1,000 samples each data set has its share, rounded, in a shuffled order; each goes through shuffled passes
    of its own. Within a data set of a small weight a pass takes longer: no sample is left out.

    Args:
        sizes: number of samples of each data set. weights: above 0, one each.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int) -> None:
        self.starts = [sum(sizes[:number]) for number in range(len(sizes))]
        self.streams = [ShuffledStream(size, seed + number) for number, size in enumerate(sizes)]
        self.seed, self.counts = seed, shares(weights, MIXED)
        self._slots = [number for number, count in enumerate(self.counts) for _ in range(count)]
        self._block, self._order, self._ranks = -1, [0], [0]

    def __getitem__(self, position: int) -> int:
        block, place = divmod(position, len(self._slots))
        if block != self._block:
            order = [self._slots[slot] for slot in epoch_order(len(self._slots), block, self.seed)]
            seen = [0] * len(self.counts)
            ranks = []
            for chosen in order:
                ranks.append(seen[chosen])
                seen[chosen] += 1
            self._block, self._order, self._ranks = block, order, ranks
        chosen = self._order[place]
        return self.starts[chosen] + self.streams[chosen][block * self.counts[chosen] + self._ranks[place]]


class DataOrder(Sampler[int]):
    """Indices of samples, one shuffled pass over the data after the other, cut at a first and a last position.

    Position p of the whole stream belongs to epoch p // size. Batches run across the end of an epoch, so every
    optimizer step sees the same number of samples and none is dropped.

    Args:
        size: number of samples in the data. start, stop: positions in the stream, start included, stop not.
        seed: with the epoch, the only source of the order.
        stream: another endless order than shuffled passes.
    """

    def __init__(self, size: int, start: int, stop: int, seed: int, stream: Stream | None = None) -> None:
        self.start, self.stop = start, stop
        self.stream = stream or ShuffledStream(size, seed)

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[int]:
        return (self.stream[position] for position in range(self.start, self.stop))


def epoch_order(size: int, epoch: int, seed: int) -> list[int]:
    """The permutation of range(size) that is `epoch`'s order."""
    return _drawn_order(size, epoch, seed).tolist()


def _drawn_order(size: int, epoch: int, seed: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(_epoch_seed(seed, epoch)))


def _epoch_seed(seed: int, epoch: int) -> int:
    # Neighbouring seeds must not share epochs, so the two numbers are not simply added.
    return (seed * 1_000_003 + epoch) % 2**63


def shares(weights: Sequence[float], total: int) -> list[int]:
    """Whole numbers in the proportion of `weights` that sum to `total`, at least 1 each: by largest remainder."""
    exact = [weight / sum(weights) * total for weight in weights]
    counts = [max(1, int(value)) for value in exact]
    by_remainder = sorted(range(len(weights)), key=lambda number: counts[number] - exact[number])
    for turn in range(max(0, total - sum(counts))):
        counts[by_remainder[turn % len(counts)]] += 1
    return counts
