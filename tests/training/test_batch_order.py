from collections import Counter

import pytest
from accelerate import Accelerator
from torch.utils.data import DataLoader

from geopos_diffusers.training import data_order
from geopos_diffusers.training.batch_order import BatchOrder
from geopos_diffusers.training.data_order import DataOrder, MixedStream, ShuffledStream
from geopos_diffusers.training.permutation import permuted

SIZES = (50, 33, 7, 1)


class Group:
    """Samples 1000 g .. 1000 g + size - 1, shuffled."""

    def __init__(self, number: int, size: int) -> None:
        self.first, self.stream = 1000 * number, ShuffledStream(size, number)

    def __getitem__(self, position: int) -> int:
        return self.first + self.stream[position]


def batches(start: int, stop: int, processes: int = 2, seed: int = 1) -> list[list[int]]:
    groups = [Group(number, size) for number, size in enumerate(SIZES)]
    return list(BatchOrder(groups, SIZES, 2, processes, start, stop, seed))


class TestGroups:
    def test_every_batch_of_a_step_is_of_one_group(self):
        found = batches(0, 500)
        assert len(found) == 1000
        assert {len(batch) for batch in found} == {2}
        for first, second in zip(found[::2], found[1::2], strict=True):
            assert len({index // 1000 for index in first + second}) == 1

    def test_every_sample_is_seen_equally_often(self):
        counts = Counter(index for batch in batches(0, 2000) for index in batch)
        assert len(counts) == sum(SIZES)
        mean = 8000 / sum(SIZES)
        assert mean - 4 < min(counts.values()) <= max(counts.values()) < mean + 4

    @pytest.mark.parametrize("start", [0, 1, 22, 23, 100, 499, 500])
    def test_a_later_start_is_the_rest(self, start):
        assert batches(start, 500) == batches(0, 500)[2 * start :]

    def test_other_seeds_have_other_orders(self):
        assert batches(0, 20) != batches(0, 20, seed=2)

    def test_accelerate_deals_the_batches_as_they_come(self):
        groups = [Group(number, size) for number, size in enumerate(SIZES)]
        loader = DataLoader(range(4000), batch_sampler=BatchOrder(groups, SIZES, 2, 1, 3, 10, 1))
        seen = [batch.tolist() for batch in Accelerator(cpu=True).prepare(loader)]
        assert seen == batches(3, 10, processes=1)


class TestMixedStream:
    def test_data_sets_have_their_shares_and_lose_no_sample(self):
        stream = MixedStream([10, 30], [1, 3], seed=0)
        counts = Counter(stream[position] for position in range(4000))
        assert set(counts.values()) == {100}
        first_hundred = sum(stream[position] < 10 for position in range(100))
        assert 10 < first_hundred < 45

    def test_any_position_can_be_asked_for(self):
        stream, other = (MixedStream([10, 30, 5], [1, 3, 0.2], seed=4) for _ in range(2))
        assert [other[position] for position in (2500, 3, 999, 1000)] == [
            [stream[position] for position in range(2600)][position] for position in (2500, 3, 999, 1000)
        ]


class TestPermutation:
    @pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 1000, 4097])
    def test_every_position_has_a_place_of_its_own(self, size):
        assert sorted(permuted(position, size, 7) for position in range(size)) == list(range(size))

    def test_keys_give_unrelated_orders(self):
        orders = [[permuted(position, 2000, key) for position in range(2000)] for key in (0, 1)]
        kept = sum(a == b for a, b in zip(*orders, strict=True))
        assert kept < 12  # 1 is expected
        fixed = sum(index == place for index, place in enumerate(orders[0]))
        assert fixed < 12
        rising = sum(a < b for a, b in zip(orders[0], orders[0][1:], strict=False))
        assert 920 < rising < 1080  # of 1999: a standard deviation is 13

    def test_large_data_use_it_and_small_ones_draw_their_order(self, monkeypatch):
        small = list(DataOrder(100, 0, 200, seed=3))
        monkeypatch.setattr(data_order, "LARGEST_DRAWN", 50)
        large = list(DataOrder(100, 0, 200, seed=3))
        assert small != large
        assert sorted(large[:100]) == sorted(large[100:]) == list(range(100))
        assert list(DataOrder(100, 77, 130, seed=3)) == large[77:130]
