import math

import pytest
import torch
from experiments.depth.loss import scale_invariant_log_loss


def test_loss_by_hand():
    depth = torch.tensor([[[[1.0, 1.0, 0.0]]], [[[2.0, 0.0, 0.0]]]])
    predicted = torch.tensor([[[[math.e, 1.0, 5.0]]], [[[2.0, 3.0, 4.0]]]])
    # Differences 1 and 0: mean of squares 1/2, squared mean 1/4; the second image is right.
    assert scale_invariant_log_loss(predicted, depth).item() == pytest.approx((1 / 2 - 0.5 / 4) / 2)


def test_a_wrong_scale_costs_half_of_its_squared_logarithm():
    depth = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) + 1
    assert scale_invariant_log_loss(3 * depth, depth).item() == pytest.approx(0.5 * math.log(3) ** 2, rel=1e-5)


def test_gradient_is_finite_and_of_the_foreground_alone():
    depth = torch.tensor([[[[2.0, 0.0]]]])
    predicted = torch.tensor([[[[1.0, 3.0]]]], requires_grad=True)
    scale_invariant_log_loss(predicted, depth).backward()
    assert predicted.grad[0, 0, 0, 0] < 0
    assert predicted.grad[0, 0, 0, 1] == 0
