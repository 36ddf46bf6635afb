import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from geopos_diffusers.training.data_order import DataOrder, epoch_order


def test_every_epoch_sees_every_sample_once_in_another_order():
    stream = list(DataOrder(7, 0, 21, seed=3))
    epochs = [stream[start : start + 7] for start in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("start", [0, 1, 7, 10, 20, 21])
def test_a_later_start_is_the_rest_of_the_stream(start):
    order = DataOrder(7, start, 21, seed=3)
    assert list(order) == list(DataOrder(7, 0, 21, seed=3))[start:]
    assert len(order) == 21 - start


def test_a_stop_does_not_change_what_comes_before():
    assert list(DataOrder(7, 0, 10, seed=3)) == list(DataOrder(7, 0, 50, seed=3))[:10]


def test_seeds_do_not_share_epochs():
    orders = {(seed, epoch): tuple(epoch_order(20, epoch, seed)) for seed in range(5) for epoch in range(5)}
    assert len(set(orders.values())) == 25


def test_processes_share_the_stream_without_overlap():
    stream = list(DataOrder(100, 0, 24, seed=0))
    shards = [list(BatchSamplerShard(BatchSampler(stream, 3, True), 2, process)) for process in range(2)]
    first, second = ([index for batch in shard for index in batch] for shard in shards)
    assert not set(first) & set(second)
    assert sorted(first + second) == sorted(stream)
    assert shards[0][0] + shards[1][0] == stream[:6]
