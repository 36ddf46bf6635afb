"""Errors of predicted depth maps (Eigen, Puhrsch and Fergus 2014, arXiv 1406.2283, section 4.3)."""

import torch
from torch import Tensor

from geopos_diffusers.errors import DataError

THRESHOLDS = (1.05, 1.25)  # of delta; the first is this project's own, for where the second has nothing left to tell


def depth_errors(predicted: Tensor, depth: Tensor) -> dict[str, Tensor]:
    """Errors of each image [B], over the pixels where `depth` is above 0; it is 0 where no depth is known.

    abs_rel: mean of |predicted - depth| / depth. rmse: root of the mean squared difference, in the unit of depth.
    delta_1.25: share of pixels with max(predicted / depth, depth / predicted) < 1.25, delta_1.05 likewise.

    Args:
        predicted: positive depth [B, 1, H, W]. depth: the true one, of the same shape and unit.

    Raises:
        DataError: different shapes, or an image without known depth.
    """
    if predicted.shape != depth.shape or depth.ndim != 4:
        raise DataError(f"depth maps must both be [B, 1, H, W]; got {tuple(predicted.shape)} and {tuple(depth.shape)}")
    mask = (depth > 0).flatten(1)
    counts = mask.sum(1)
    if not counts.all():
        raise DataError(f"{int((counts == 0).sum())} of {len(depth)} images have no pixel of known depth")
    predicted, depth = predicted.flatten(1), depth.flatten(1)
    known = torch.where(mask, depth, 1.0)  # no division by 0
    ratio = torch.maximum(predicted / known, known / predicted)

    def mean(values: Tensor) -> Tensor:
        return torch.where(mask, values, 0.0).sum(1) / counts

    errors = {"abs_rel": mean((predicted - depth).abs() / known), "rmse": mean((predicted - depth) ** 2).sqrt()}
    return errors | {f"delta_{threshold}": mean((ratio < threshold).float()) for threshold in THRESHOLDS}
