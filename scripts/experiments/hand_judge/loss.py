"""The judge's loss: cross-entropies of its answers, and the distance of its key points."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from geopos_diffusers.data.hand_defects import DEFECTS
from geopos_diffusers.metrics.hand_judge_network import HIDDEN

from .data import VIEWS

WEIGHTS = {
    "present": 0.5,
    "well_formed": 1.5,
    "fingers": 1.0,
    "right": 1.0,
    "kinds": 0.5,
    "views": 0.5,
    "keypoints": 4.0,
    "maps": 0.5,
}
SPREAD = 0.05  # standard deviation of a key point's place in the maps that are learnt, as a share of the side


class JudgeLoss(nn.Module):
    """Losses by name; "loss" is their sum by WEIGHTS. Where no hand is shown, only `present` has a target.

    Two layers only serve the training. One tells the kinds of defects apart, whose features `well_formed` needs, and
    finds them sooner. One tells palm, back and side apart: which hand it is, is the thumb's side if it is the palm and
    the other if it is the back, and neither alone says anything.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.kinds = nn.Linear(HIDDEN, len(DEFECTS) + 1)
        self.views = nn.Linear(HIDDEN, len(VIEWS))

    def forward(
        self,
        images: Tensor,
        keypoints: Tensor,
        present: Tensor,
        well_formed: Tensor,
        well_formed_weight: Tensor,
        fingers: Tensor,
        fingers_weight: Tensor,
        right: Tensor,
        right_weight: Tensor,
        kinds: Tensor,
        views: Tensor,
    ) -> dict[str, Tensor]:
        """All [B, ...]. `kinds` are 0 for well-formed hands, else 1 + the index in DEFECTS; `views` indices in VIEWS.

        Key points are shares of the side; those outside the image are left out.
        """
        found = self.network(images)
        binary = functional.binary_cross_entropy_with_logits
        inside = ((keypoints > 0.0) & (keypoints < 1.0)).all(2) * present[:, None]
        distance = functional.smooth_l1_loss(found.keypoints, keypoints, reduction="none", beta=0.02).sum(2)
        losses = {
            "present": binary(found.present, present),
            "well_formed": _mean(
                binary(found.well_formed, well_formed, reduction="none"), well_formed_weight * present
            ),
            "fingers": _mean(
                functional.cross_entropy(found.fingers, fingers, reduction="none"), fingers_weight * present
            ),
            "right": _mean(binary(found.right_hand, right, reduction="none"), right_weight * present),
            "kinds": _mean(
                functional.cross_entropy(self.kinds(found.hidden).float(), kinds, reduction="none"), present
            ),
            "views": _mean(
                functional.cross_entropy(self.views(found.hidden).float(), views, reduction="none"), present
            ),
            "keypoints": _mean(distance, inside),
            "maps": _mean(_map_loss(found.maps, keypoints), inside),
        }
        total = torch.stack([WEIGHTS[name] * value for name, value in losses.items()]).sum()
        return {"loss": total, **{f"{name}_loss": value for name, value in losses.items()}}


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1e-6)


def _map_loss(maps: Tensor, keypoints: Tensor) -> Tensor:
    """Cross-entropy [B, 21] of the maps [B, 21, H, W] against a small Gaussian around each key point."""
    height, width = maps.shape[2:]
    across = (torch.arange(width, device=maps.device) + 0.5) / width - keypoints[..., :1]
    down = (torch.arange(height, device=maps.device) + 0.5) / height - keypoints[..., 1:]
    squared = down[..., :, None] ** 2 + across[..., None, :] ** 2
    target = (-squared / (2 * SPREAD**2)).flatten(2).softmax(2)
    return -(target * maps.flatten(2).log_softmax(2)).sum(2)
