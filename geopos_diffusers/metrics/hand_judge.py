"""The second judge of hands, which shares nothing with MediaPipe: a small network trained on rendered hands.

It says whether an image shows a hand, whether the hand is well formed, how many fingers are raised, which hand it is,
and where its 21 key points lie. How it was trained, and how well it judges, is in `pretrained/hand_judge/README.md`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..errors import DataError
from ..images.opening import open_image
from .hand_crops import patch
from .wheel_files import sha256_of

if TYPE_CHECKING:
    from torch import Tensor

    from .hand_judge_network import HandJudgeNetwork, JudgeOutput

FOLDER = Path(__file__).parents[1] / "pretrained" / "hand_judge"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_SHA256 = "a4d652523d222f9b9e3563bb7e618fe04470448a73aa5c4ff4dd2d9bc8b1bb77"
BATCH = 16  # images at a time: more do not stay in a processor's cache
# The second look is at a square this many times as wide as the key points of the first, of at least so many pixels.
CROP_MARGIN, SMALLEST_CROP = 1.5, 8
LONGEST_SIDE = 512  # larger images are reduced before the second look, which sees 96 pixels


@dataclass(frozen=True)
class Judgement:
    """What the judge says of an image. All but `present` means little where no hand is shown.

    present: probability that the image shows a hand, [0, 1].
    well_formed: probability that the hand is well formed, [0, 1], as it was trained: half of the hands are.
    fingers: the most probable number of raised fingers, 0 to 5; finger_probabilities: [6] float64, of each number.
    right_hand: probability that it is a right hand, [0, 1], in an image that is not mirrored.
    keypoints: [21, 2] float64, x and y in pixels of the image as given, in MediaPipe's order. They may lie outside.
    """

    present: float
    well_formed: float
    fingers: int
    finger_probabilities: np.ndarray
    right_hand: float
    keypoints: np.ndarray


@dataclass(frozen=True)
class Square:
    """A square of a picture: its middle `x`, `y` and `side` in pixels, turned clockwise by `angle`, in radians."""

    x: float
    y: float
    side: float
    angle: float

    @property
    def axes(self) -> np.ndarray:
        """[2, 2]: its own x and y axis as unit vectors of the picture."""
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        return np.array([[cosine, sine], [-sine, cosine]])


class HandJudge:
    """Judges images with a `HandJudgeNetwork`, which it puts into evaluation mode. It uses as many threads as torch."""

    def __init__(self, network: "HandJudgeNetwork") -> None:
        self.network = network.eval()

    def judge(self, images: Sequence[Image.Image]) -> list[Judgement]:
        """Judge images of any sizes and modes.

        The network looks twice: at the whole image on a square, whose rest repeats the image's edge, and then at a
        square around the key points found there, turned so that the hand is upright, and at its mirror image, whose
        answers are averaged. `present` is of both looks, the rest of the second.

        Raises:
            DataError: an image that cannot be decoded, or whose values have no known range.
        """
        starts = range(0, len(images), BATCH)
        return [judgement for start in starts for judgement in self._judge_batch(images[start : start + BATCH])]

    def _judge_batch(self, images: Sequence[Image.Image]) -> Iterator[Judgement]:
        import torch

        opened = [open_image(image) for image in images]
        pixels = [np.asarray(_reduced(image)) for image in opened]
        with torch.inference_mode():
            squares = [whole_square(picture) for picture in pixels]
            first = self.network(_inputs(pixels, squares))
            squares = [square_around(points) for points in _in_pixels(first, squares)]
            crops = _inputs(pixels, squares)
            second, mirrored = self.network(crops), self.network(crops.flip(3))
            mirrored.keypoints[..., 0] = 1.0 - mirrored.keypoints[..., 0]
            second.keypoints.add_(mirrored.keypoints).div_(2.0)
            present = ((first.present + (second.present + mirrored.present) / 2) / 2).sigmoid()
            well_formed = ((second.well_formed + mirrored.well_formed) / 2).sigmoid()
            right = ((second.right_hand - mirrored.right_hand) / 2).sigmoid()
            fingers = ((second.fingers + mirrored.fingers) / 2).softmax(1).double().numpy()
            places = _in_pixels(second, squares)
        for index, (picture, image) in enumerate(zip(pixels, opened, strict=True)):
            yield Judgement(
                present=float(present[index]),
                well_formed=float(well_formed[index]),
                fingers=int(fingers[index].argmax()),
                finger_probabilities=fingers[index],
                right_hand=float(right[index]),
                keypoints=places[index] * image.width / picture.shape[1],
            )


def load_hand_judge(folder: Path = FOLDER) -> HandJudge:
    """The judge that comes with the package, or the one in a `folder` with a copy of its file.

    Raises:
        DataError: the file of its weights is missing or not the known one.
    """
    from safetensors.torch import load

    path = folder / WEIGHTS_FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"the hand judge's weights {path} cannot be read: {error.strerror}") from error
    if sha256_of(content) != WEIGHTS_SHA256:
        raise DataError(f"the hand judge's weights {path} are damaged: their SHA-256 differs; install the package anew")
    return HandJudge(network_of(load(content)))


def network_of(weights: "dict[str, Tensor]") -> "HandJudgeNetwork":
    """A network with `weights`, in single precision whatever they are stored in."""
    from .hand_judge_network import HandJudgeNetwork

    network = HandJudgeNetwork()
    network.load_state_dict(weights)  # which copies into parameters of single precision
    return network


def whole_square(picture: np.ndarray) -> Square:
    """The square that holds a picture [H, W, 3] in its middle."""
    height, width = picture.shape[:2]
    return Square(width / 2, height / 2, float(max(height, width)), 0.0)


def square_around(points: np.ndarray) -> Square:
    """The square around key points [21, 2], with a margin, in which the middle knuckle is above the wrist."""
    along = points[9] - points[0]
    square = Square(0.0, 0.0, 1.0, float(np.arctan2(along[0], -along[1])))
    turned = points @ square.axes.T
    low, high = turned.min(0), turned.max(0)
    x, y = (low + high) / 2 @ square.axes
    return Square(float(x), float(y), max(SMALLEST_CROP, CROP_MARGIN * float((high - low).max())), square.angle)


def crop_square(picture: np.ndarray, square: Square, size: int) -> np.ndarray:
    """A square of a picture [H, W, 3] at `size` pixels, [S, S, 3] bytes; outside, the picture's edge is repeated."""
    # The upright square that holds it is cut out and reduced first, since turning alone would not average pixels.
    around = max(1.0, square.side * (1.0 if square.angle == 0.0 else np.sqrt(2.0)))
    left, top = round(square.x - around / 2), round(square.y - around / 2)
    count = max(1, round(around))
    crop = patch(picture, left, top, count, count)
    zoom = size / square.side
    if zoom < 1.0:
        crop = crop.resize((max(1, round(count * zoom)),) * 2, Image.Resampling.BILINEAR)
    scale = crop.width / count  # pixels of the crop for one of the picture
    step = square.side / size * scale * square.axes.T
    start = (np.array([square.x - left, square.y - top])) * scale - step.sum(1) * size / 2
    matrix = (*step[0], start[0], *step[1], start[1])
    return np.asarray(crop.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))


def _inputs(pixels: list[np.ndarray], squares: list[Square]) -> "Tensor":
    """The network's inputs [B, 3, S, S] in [0, 1]: a square of each picture."""
    import torch

    from .hand_judge_network import SIZE

    crops = [crop_square(picture, square, SIZE) for picture, square in zip(pixels, squares, strict=True)]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous().float() / 255.0


def _in_pixels(output: "JudgeOutput", squares: list[Square]) -> np.ndarray:
    """Key points [B, 21, 2] in pixels of the pictures that the `squares` were cut from."""
    shares = output.keypoints.double().numpy() - 0.5
    return np.stack(
        [
            points @ square.axes * square.side + (square.x, square.y)
            for points, square in zip(shares, squares, strict=True)
        ]
    )


def _reduced(image: Image.Image) -> Image.Image:
    longer = max(image.size)
    if longer <= LONGEST_SIDE:
        return image
    width, height = (max(1, round(side * LONGEST_SIDE / longer)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
