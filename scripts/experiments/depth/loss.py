"""The training loss of depth maps (Eigen, Puhrsch and Fergus 2014, arXiv 1406.2283, section 3.2)."""

import torch
from torch import Tensor

SCALE_SHARE = 0.5  # lambda of the paper: 0 is the squared error of log-depth, 1 leaves out its mean


def scale_invariant_log_loss(predicted: Tensor, depth: Tensor) -> Tensor:
    """Mean over images of mean(d^2) - 0.5 mean(d)^2, where d = log(predicted) - log(depth) at the known pixels.

    Args:
        predicted: positive depth [B, 1, H, W]. depth: the true one, 0 where it is not known; known somewhere in each
            image.
    """
    mask = depth > 0
    counts = mask.flatten(1).sum(1)
    difference = torch.where(mask, predicted.log() - torch.where(mask, depth, 1.0).log(), 0.0).flatten(1)
    return ((difference**2).sum(1) / counts - SCALE_SHARE * (difference.sum(1) / counts) ** 2).mean()
