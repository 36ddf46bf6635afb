"""The order of batches where every batch is of one group, such as images of one size: a function of seed and position.

In a step all processes have the same group. Each group goes through shuffled passes over its own samples; its batches
run across the end of a pass, so no sample is dropped, and over many steps every sample is seen equally often.
"""

from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from .data_order import Stream, epoch_order

LARGEST_BLOCK = 4096  # batches of all processes whose groups are shuffled at once


class BatchOrder(Sampler[list[int]]):
    """Batches of indices, dealt to the processes in turn, from a first to a last one.

    In each block of at most 4,096 batches of all processes, and of no more samples than all groups have, group g has
    floor((b + 1) n / B) - floor(b n / B) batches, n being its samples a block and B those of a batch of all processes:
    what is left over counts in the next block. A group of fewer than B samples has a sample more than once in a batch,
    and such batches seldom.

    Args:
        streams: one endless order of samples a group. sizes: numbers of samples whose proportions the groups have.
        batch_size: of one process. processes: how many there are.
        start, stop: batches of all processes together, start included, stop not.
    """

    drop_last = False  # for accelerate, which deals batches as it deals those of torch's own BatchSampler

    def __init__(
        self,
        streams: Sequence[Stream],
        sizes: Sequence[float],
        batch_size: int,
        processes: int,
        start: int,
        stop: int,
        seed: int,
    ) -> None:
        self.streams, self.seed, self.start, self.stop = streams, seed, start, stop
        self.batch_size, self.processes, self.together = batch_size, processes, batch_size * processes
        scale = min(1.0, LARGEST_BLOCK * self.together / sum(sizes))
        self.sizes = [size * scale for size in sizes]

    def __len__(self) -> int:
        return max(0, self.stop - self.start) * self.processes

    def __iter__(self) -> Iterator[list[int]]:
        together = self.together
        block = self._block_of(self.start)
        number = sum(self._counts(block))
        while number < self.stop:
            done, then = self._counts(block), self._counts(block + 1)
            slots = [group for group in range(len(done)) for _ in range(then[group] - done[group])]
            for slot in epoch_order(len(slots), block, self.seed):
                group = slots[slot]
                if self.start <= number < self.stop:
                    first = done[group] * together
                    samples = [self.streams[group][position] for position in range(first, first + together)]
                    for begin in range(0, together, self.batch_size):
                        yield samples[begin : begin + self.batch_size]
                done[group] += 1
                number += 1
            block += 1

    def _counts(self, block: int) -> list[int]:
        """Batches of all processes that each group had before a block."""
        return [int(block * size // self.together) for size in self.sizes]

    def _block_of(self, number: int) -> int:
        """The last block that begins at batch `number` or before it."""
        low, high = 0, 1
        while sum(self._counts(high)) <= number:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if sum(self._counts(middle)) <= number else (low, middle)
        return low
