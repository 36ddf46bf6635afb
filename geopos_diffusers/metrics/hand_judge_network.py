"""The network of the second judge of hands: small, convolutional, trained in this project on rendered hands alone."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE = 96  # of its input, in pixels
KEYPOINTS, COUNTS = 21, 6
_WIDTHS = (24, 40, 80, 160)
_DECODER = 64
HIDDEN = 192


@dataclass(frozen=True)
class JudgeOutput:
    """Logits `present` [B], `well_formed` [B], `fingers` [B, 6] and `right_hand` [B]; `keypoints` [B, 21, 2].

    Key points are shares of the image's side, x then y: 0 to 1; `maps` [B, 21, 12, 12] are the logits of
    where they lie. `hidden` [B, HIDDEN] is what the other logits are made from.
    """

    present: Tensor
    well_formed: Tensor
    fingers: Tensor
    right_hand: Tensor
    keypoints: Tensor
    maps: Tensor
    hidden: Tensor


class Residual(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a skip (arXiv 1512.03385, figure 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolution(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, hidden: Tensor) -> Tensor:
        return functional.relu(hidden + self.second(self.first(hidden)))


def convolution(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class HandJudgeNetwork(nn.Module):
    """[B, 3, 96, 96] in [0, 1] -> `JudgeOutput`. 1.8 M parameters.

    A residual encoder to a sixteenth of the side. Key points are the means of softmaxed maps at an eighth of the side
    (integral regression, arXiv 1711.08229, section 3), from the encoder's last two stages added up (feature pyramid,
    arXiv 1612.03144, section 3). The other answers come from the deepest stage's mean and maximum over places,
    from the features at each key point, since whether a finger is well formed is seen along it, and from where the key
    points lie.
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third, fourth = _WIDTHS
        self.quarter = nn.Sequential(convolution(3, first, 2), convolution(first, second, 2), Residual(second))
        self.eighth = nn.Sequential(convolution(second, third, 2), Residual(third), Residual(third))
        self.sixteenth = nn.Sequential(convolution(third, fourth, 2), Residual(fourth), Residual(fourth))
        self.lateral, self.deep = nn.Conv2d(third, _DECODER, 1), nn.Conv2d(fourth, _DECODER, 1)
        self.smooth = convolution(_DECODER, _DECODER)
        self.maps = nn.Conv2d(_DECODER, KEYPOINTS, 1)
        self.joined = nn.Sequential(
            nn.Linear(2 * fourth + KEYPOINTS * (_DECODER + 2), HIDDEN), nn.ReLU(), nn.Dropout(0.1)
        )
        self.answers = nn.Linear(HIDDEN, 4 + COUNTS)

    def forward(self, images: Tensor) -> JudgeOutput:
        eighth = self.eighth(self.quarter((images - 0.5) * 4.0))
        sixteenth = self.sixteenth(eighth)
        merged = functional.interpolate(self.deep(sixteenth), scale_factor=2.0) + self.lateral(eighth)
        places = self.smooth(merged)
        maps = self.maps(places).float()
        chance = maps.flatten(2).softmax(2)
        keypoints = expected_places(chance.unflatten(2, maps.shape[2:]))
        at_keypoints = chance.detach().to(places.dtype) @ places.flatten(2).mT  # [B, 21, features]
        shape = 4.0 * (keypoints - keypoints.mean(1, keepdim=True)).detach().to(places.dtype)
        whole = [sixteenth.mean((2, 3)), sixteenth.amax((2, 3)), at_keypoints.flatten(1), shape.flatten(1)]
        hidden = self.joined(torch.cat(whole, dim=1))
        answers = self.answers(hidden).float()
        right_hand = answers[:, 2] + thumb_side(keypoints.detach()) * answers[:, 3 + COUNTS]
        return JudgeOutput(
            answers[:, 0], answers[:, 1], answers[:, 3 : 3 + COUNTS], right_hand, keypoints, maps, hidden
        )


def thumb_side(keypoints: Tensor) -> Tensor:
    """[B] in [-3, 3]: on which side of the line from wrist to middle knuckle the index is, seen from the little finger.

    Which hand it is, is this side if the palm is seen and the other if the back is: a product, which the layers before
    did not find by themselves.
    """
    along, across = keypoints[:, 9] - keypoints[:, 0], keypoints[:, 5] - keypoints[:, 17]
    area = along[:, 0] * across[:, 1] - along[:, 1] * across[:, 0]
    return 3.0 * area / (along.norm(dim=1) * across.norm(dim=1)).clamp(min=1e-6)


def expected_places(chance: Tensor) -> Tensor:
    """Means of distributions over places, [B, K, H, W] -> [B, K, 2], as shares of the sides, x then y."""
    height, width = chance.shape[-2:]
    across = (torch.arange(width, device=chance.device) + 0.5) / width
    down = (torch.arange(height, device=chance.device) + 0.5) / height
    return torch.stack([(chance.sum(2) * across).sum(2), (chance.sum(3) * down).sum(2)], dim=2)
