"""The judge's loss: cross-entropies of its answers, and the distance of its key points."""

import torch
from torch import Tensor, nn
from torch.nn import functional

WEIGHTS = {"present": 0.5, "well_formed": 1.0, "fingers": 1.0, "right": 0.5, "keypoints": 8.0}


class JudgeLoss(nn.Module):
    """Losses by name; "loss" is their sum by WEIGHTS. Where no hand is shown, only `present` has a target."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

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
    ) -> dict[str, Tensor]:
        """All [B, ...]; key points as shares of the side, those outside the image are left out."""
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
            "keypoints": _mean(distance, inside),
        }
        total = torch.stack([WEIGHTS[name] * value for name, value in losses.items()]).sum()
        return {"loss": total, **{f"{name}_loss": value for name, value in losses.items()}}


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1e-6)
