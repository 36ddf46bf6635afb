"""The order in which samples are seen: a function of the seed and the epoch alone, so that a run can be continued."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class DataOrder(Sampler[int]):
    """Indices of samples, one shuffled pass over the data after the other, cut at a first and a last position.

    Position p of the whole stream belongs to epoch p // size. Batches run across the end of an epoch, so every
    optimizer step sees the same number of samples and none is dropped.

    Args:
        size: number of samples in the data. start, stop: positions in the stream, start included, stop not.
        seed: with the epoch, the only source of the order.
    """

    def __init__(self, size: int, start: int, stop: int, seed: int) -> None:
        self.size, self.start, self.stop, self.seed = size, start, stop, seed

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[int]:
        position = self.start
        while position < self.stop:
            epoch, first = divmod(position, self.size)
            for index in epoch_order(self.size, epoch, self.seed)[first : first + self.stop - position]:
                yield index
                position += 1


def epoch_order(size: int, epoch: int, seed: int) -> list[int]:
    """The permutation of range(size) that is `epoch`'s order."""
    # Neighbouring seeds must not share epochs, so the two numbers are not simply added.
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(size, generator=generator).tolist()
