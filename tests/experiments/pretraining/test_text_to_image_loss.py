import pytest
import torch
from experiments.pretraining.text_to_image_loss import stratified_timesteps


@pytest.mark.parametrize(("count", "limit"), [(32, 1000), (7, 10), (1, 1000), (10, 10)])
def test_one_timestep_in_each_stratum(count, limit):
    for seed in range(20):
        steps = stratified_timesteps(count, limit, torch.Generator().manual_seed(seed))
        assert steps.dtype == torch.long
        low = (torch.arange(count) * limit / count).floor()
        high = (torch.arange(1, count + 1) * limit / count).ceil() - 1
        assert ((steps >= low) & (steps <= high)).all()


def test_timesteps_are_uniform():
    generator = torch.Generator().manual_seed(0)
    steps = torch.cat([stratified_timesteps(8, 1000, generator) for _ in range(4000)]).double()
    assert abs(steps.mean() - 499.5) < 2
    assert abs(steps.std() - 288.7) < 3
