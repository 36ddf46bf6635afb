"""Training batches of the judge: hands, a share of pictures without one, and targets."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geopos_diffusers.data.hand_defects import DEFECTS

from .augment import cast_shadow, degrade, frame, smear, weather
from .data import SOUND, Hands

NEGATIVE_SHARE = 0.15
# In these the number of raised fingers is still seen, so that they teach it; in these, which hand it is, is not.
_COUNT_KEPT = [DEFECTS.index(kind) for kind in ("mirrored", "thumb_side")]
_SIDE_LOST = [DEFECTS.index(kind) for kind in ("mirrored", "thumb_side", "melted")]


@dataclass(frozen=True)
class Labels:
    """Targets of N hands, as tensors, with the weights that they have in the losses (0: no target)."""

    well_formed: Tensor
    well_formed_weight: Tensor
    fingers: Tensor
    fingers_weight: Tensor
    right: Tensor
    right_weight: Tensor
    kinds: Tensor
    views: Tensor


def make_labels(hands: Hands) -> Labels:
    """Targets; "well formed" is weighted so that it is as likely as not in each view with each number of fingers.

    Defects are drawn again in another pose where they cannot be seen, so that without these weights a fist would be
    more often well formed, and the network would learn that instead of looking.
    """
    sound = hands.defects == SOUND
    group = hands.views * 6 + hands.fingers
    count = np.bincount(group, minlength=18).astype(float)
    share = np.bincount(group, sound, minlength=18) / np.maximum(count, 1.0)
    own = np.where(sound, share[group], 1.0 - share[group])
    counted = sound | np.isin(hands.defects, _COUNT_KEPT)
    values = {
        "well_formed": sound,
        "well_formed_weight": np.clip(0.5 / np.maximum(own, 1e-3), 0.25, 4.0),
        "fingers_weight": counted,
        "right": hands.right,
        "right_weight": ~np.isin(hands.defects, _SIDE_LOST),
    }
    tensors = {name: torch.from_numpy(value.astype(np.float32)) for name, value in values.items()}
    whole = {"fingers": hands.fingers, "kinds": hands.defects - SOUND, "views": hands.views}
    return Labels(**{name: torch.from_numpy(value) for name, value in whole.items()}, **tensors)


def compose(
    hands: Tensor, keypoints: Tensor, backgrounds: Tensor, heads: Tensor, negatives: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Finished images [B, 3, S, S] in [0, 1], key points [B, 21, 2] as shares of S, and which were `mirrored` [B].

    Args:
        hands: [B, S, S, 4] bytes; keypoints [B, 21, 2] in their pixels.
        backgrounds: [N, S, S, 3] bytes to choose from; heads: [M, S, S, 4] bytes.
        negatives: [B] bool: images to show no hand. A third of them are smeared hands, a third heads.
    """
    count = len(hands)
    framed = frame(hands, keypoints, generator)
    cut = framed.cut
    kinds = torch.randint(3, (count,), generator=generator)
    smeared, headed = negatives & (kinds == 0), negatives & (kinds == 1)
    if smeared.any():
        cut[smeared] = smear(cut[smeared], generator)
    if headed.any():
        chosen = torch.randint(len(heads), (int(headed.sum()),), generator=generator)
        cut[headed] = frame(heads[chosen], keypoints[headed], generator).cut
    cut[negatives & (kinds == 2)] = 0.0
    behind = backgrounds[torch.randint(len(backgrounds), (count,), generator=generator)].permute(0, 3, 1, 2) / 255.0
    flipped = torch.rand(count, generator=generator) < 0.5
    behind[flipped] = behind[flipped].flip(3)
    cut = weather(cut, generator)
    behind = cast_shadow(behind, cut[:, 3:], generator)
    images = degrade(cut[:, :3] + (1.0 - cut[:, 3:]) * behind, generator)
    return {"images": images, "keypoints": framed.keypoints, "mirrored": framed.mirrored}


class BatchMaker:
    """Draws the training batch of given hands: arguments of `loss.JudgeLoss`."""

    def __init__(self, hands: Hands, backgrounds: np.ndarray, heads: np.ndarray) -> None:
        self.labels = make_labels(hands)
        self.pixels, self.keypoints = torch.from_numpy(hands.pixels), torch.from_numpy(hands.keypoints)
        self.backgrounds, self.heads = torch.from_numpy(backgrounds), torch.from_numpy(heads)

    def __call__(self, indices: list[int], step: int, generator: torch.Generator) -> dict[str, Tensor]:
        negatives = torch.rand(len(indices), generator=generator) < NEGATIVE_SHARE
        batch = compose(
            self.pixels[indices], self.keypoints[indices], self.backgrounds, self.heads, negatives, generator
        )
        labels = {name: values[indices] for name, values in vars(self.labels).items()}
        mirrored = batch.pop("mirrored").float()
        labels["right"] = (labels["right"] - mirrored).abs()
        return {**batch, "present": 1.0 - negatives.float(), **labels}
