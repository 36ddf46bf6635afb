import pytest
import torch
from experiments.depth.errors import depth_errors

from geopos_diffusers.errors import DataError


def test_errors_by_hand():
    depth = torch.tensor([[[[2.0, 4.0], [5.0, 0.0]]], [[[10.0, 0.0], [0.0, 0.0]]]])
    predicted = torch.tensor([[[[3.0, 4.0], [4.8, 99.0]]], [[[8.1, 1.0], [1.0, 1.0]]]])
    errors = depth_errors(predicted, depth)
    assert errors["abs_rel"].tolist() == pytest.approx([(1 / 2 + 0 + 0.2 / 5) / 3, 0.19])
    assert errors["rmse"].tolist() == pytest.approx([((1 + 0 + 0.04) / 3) ** 0.5, 1.9])
    # Ratios 1.5, 1, 1.042; and 1.235, of a prediction that is too near.
    assert errors["delta_1.25"].tolist() == pytest.approx([2 / 3, 1])
    assert errors["delta_1.05"].tolist() == pytest.approx([2 / 3, 0])


def test_perfect_prediction_whatever_the_background():
    depth = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)) + 1
    depth[:, :, 0] = 0
    errors = depth_errors(torch.where(depth > 0, depth, 7.0), depth)
    assert all((errors[name] == 0).all() for name in ("abs_rel", "rmse"))
    assert all((errors[name] == 1).all() for name in ("delta_1.05", "delta_1.25"))


@pytest.mark.parametrize(
    ("shape", "message"), [((2, 1, 4, 5), r"\(2, 1, 4, 5\)"), ((2, 1, 4, 4), "1 of 2 images have no pixel")]
)
def test_bad_maps(shape, message):
    depth = torch.ones(2, 1, 4, 4)
    depth[1] = 0
    with pytest.raises(DataError, match=message):
        depth_errors(torch.ones(shape), depth)
