"""What is done to every training image, whichever class it is of: framing, background, light, blur, noise, JPEG, size.

No function here sees a label but handedness, which a mirrored picture changes.
"""

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

GROUP = 8  # images of a batch that share one size and one blur
SMALLEST = 24  # pixels of the smallest size that images are reduced to
JPEG_SHARE, GREY_SHARE, CROP_SHARE, MIRROR_SHARE = 0.35, 0.05, 0.7, 0.5


@dataclass(frozen=True)
class Framed:
    """Hands placed in the frame: `cut` [B, 4, S, S] with premultiplied colours, `keypoints` [B, 21, 2] as shares of S.

    `mirrored` [B]: which of them were mirrored.
    """

    cut: Tensor
    keypoints: Tensor
    mirrored: Tensor


def frame(pixels: Tensor, keypoints: Tensor, generator: torch.Generator) -> Framed:
    """Place cut-out hands anew: mirrored, stretched a little, in a scene at any angle or as an upright crop.

    These are the two looks of `HandJudge`: at a whole image, and at a square around the key points, turned by them.

    Args:
        pixels: [B, S, S, 4] bytes, straight alpha. Beyond its edge the arm goes on as it leaves it.
        keypoints: [B, 21, 2] in pixels.
    """
    count, size = len(pixels), pixels.shape[1]
    colours = pixels.permute(0, 3, 1, 2).float() / 255.0
    cut = torch.cat([colours[:, :3] * colours[:, 3:], colours[:, 3:]], dim=1)
    places = keypoints / size * 2.0 - 1.0

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    stretch = uniform(0.92, 1.08, 2)
    mirrored = torch.rand(count, generator=generator) < MIRROR_SHARE
    stretch[mirrored, 0] *= -1.0
    crop = torch.rand(count, generator=generator) < CROP_SHARE
    free = torch.where(torch.rand(count, generator=generator) < 0.6, uniform(-15, 15), uniform(-180, 180))
    turn = torch.where(crop, upright(places * stretch[:, None]) + torch.deg2rad(uniform(-25, 25)), torch.deg2rad(free))
    cosine, sine = turn.cos(), turn.sin()
    rotation = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
    turned = (places * stretch[:, None]) @ rotation.mT
    low, high = turned.amin(1), turned.amax(1)
    # Of the frame that the key points span: a second look goes by key points that may be wrong.
    share = torch.where(crop, uniform(0.5, 0.88), uniform(0.28, 0.9))
    zoom = (2.0 * share / (high - low).amax(1))[:, None]
    shift = uniform(-1.0, 1.0, 2) * (1.0 - share)[:, None] * torch.where(crop, 0.4, 0.9)[:, None]
    # A point of the source is zoom * (rotation * stretch * point - middle) + shift in the frame.
    offset = shift - zoom * (low + high) / 2
    forward = zoom[..., None] * rotation @ torch.diag_embed(stretch)
    moved = places @ forward.mT + offset[:, None]
    backward = torch.linalg.inv(forward)
    theta = torch.cat([backward, -backward @ offset[..., None]], dim=2)
    grid = functional.affine_grid(theta, [count, 4, size, size], align_corners=False)
    framed = functional.grid_sample(cut, grid, padding_mode="border", align_corners=False)
    return Framed(framed, (moved + 1.0) / 2.0, mirrored)


def upright(keypoints: Tensor) -> Tensor:
    """Angles [B] in radians that turn hands [B, 21, 2] (y down) so that the middle knuckle is above the wrist."""
    along = keypoints[:, 9] - keypoints[:, 0]
    return -torch.pi / 2 - torch.atan2(along[:, 1], along[:, 0])


def smear(cut: Tensor, generator: torch.Generator) -> Tensor:
    """Cut-out hands [B, 4, S, S] torn by a strong smooth displacement: skin in shapes that no hand has."""
    count, size = len(cut), cut.shape[-1]
    knots = torch.rand(count, 2, 7, 7, generator=generator) * 2.0 - 1.0
    field = functional.interpolate(knots, size=(size, size), mode="bicubic", align_corners=True)
    strength = 0.5 + 0.5 * torch.rand(count, 1, 1, 1, generator=generator)
    axis = (torch.arange(size) + 0.5) / size * 2.0 - 1.0
    still = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=2)
    grid = still + (strength * field).permute(0, 2, 3, 1)
    return functional.grid_sample(cut, grid, padding_mode="border", align_corners=False)


def weather(cut: Tensor, generator: torch.Generator) -> Tensor:
    """Mottled and creased skin on cut-out hands [B, 4, S, S], whose own is as smooth as wax."""
    count, size = len(cut), cut.shape[-1]

    def field(cells: int, mode: str = "bicubic") -> Tensor:
        knots = torch.randn(count, 1, cells, cells, generator=generator)
        return functional.interpolate(knots, size=(size, size), mode=mode, align_corners=True)

    def strength(share: float, most: float) -> Tensor:
        chosen = torch.rand(count, 1, 1, 1, generator=generator) < share
        return chosen * most * torch.rand(count, 1, 1, 1, generator=generator)

    hue = 1.0 + 0.5 * torch.rand(count, 3, 1, 1, generator=generator)
    mottle = strength(0.5, 0.15) * field(6) * hue + strength(0.5, 0.1) * field(28, "bilinear")
    width = 0.04 + 0.08 * torch.rand(count, 1, 1, 1, generator=generator)
    creases = strength(0.6, 0.4) * torch.exp(-((field(7) / width) ** 2))  # along where a field is 0
    return torch.cat([cut[:, :3] * torch.exp(mottle - creases), cut[:, 3:]], dim=1)


def cast_shadow(behind: Tensor, cover: Tensor, generator: torch.Generator) -> Tensor:
    """Backgrounds [B, 3, S, S] darkened beside what covers them by `cover` [B, 1, S, S], as a wall near a hand is."""
    count = len(cover)
    chosen = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    depth = chosen * 0.7 * torch.rand(count, 1, 1, 1, generator=generator)
    across, down = torch.randint(-6, 7, (2,), generator=generator).tolist()
    halvings = int(torch.randint(1, 4, (), generator=generator))
    moved = functional.pad(cover, (8, 8, 8, 8), mode="replicate").roll((down, across), (2, 3))[:, :, 8:-8, 8:-8]
    return behind * (1.0 - depth * soften(moved, halvings))


def soften(images: Tensor, halvings: int) -> Tensor:
    """Images [B, C, S, S] blurred by halving their side so many times, which averages pixels, and enlarging them."""
    small = images
    for _ in range(halvings):
        small = functional.interpolate(small, scale_factor=0.5, mode="bilinear")
    return functional.interpolate(small, size=images.shape[2:], mode="bilinear")


def degrade(images: Tensor, generator: torch.Generator) -> Tensor:
    """Light, colours, blur, size, noise and JPEG of images [B, 3, S, S] in [0, 1]; back at their own size."""
    count, size = len(images), images.shape[-1]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    images = images.clamp(0.0, 1.0) ** torch.exp(uniform(-0.35, 0.35, 1, 1, 1))
    contrast, cast = uniform(0.6, 1.3, 1, 1, 1), uniform(0.88, 1.12, 3, 1, 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (mean + contrast * (images - mean)) * cast + uniform(-0.12, 0.12, 1, 1, 1)
    grey = torch.rand(count, generator=generator) < GREY_SHARE
    images[grey] = images[grey].mean(1, keepdim=True)
    sharpened = uniform(-1.5, 1.5, 1, 1, 1).clamp(min=0.0)  # as cameras and editors do: bright and dark seams
    images = images + sharpened * (images - soften(images, 2))
    order = torch.randperm(count, generator=generator)
    for group in order.split(GROUP):
        images[group] = _resample(images[group], size, generator)
    strength = 0.05 * torch.rand(count, 1, 1, 1, generator=generator) ** 3
    images = (images + strength * torch.randn(images.shape, generator=generator)).clamp(0.0, 1.0)
    return _compress(images, generator)


def _resample(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Reduced and enlarged again, or blurred, or neither."""
    choice = float(torch.rand((), generator=generator))
    amount = float(torch.rand((), generator=generator))
    if choice < 0.5:
        side = round(SMALLEST + amount * (size - SMALLEST))
        small = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
        return functional.interpolate(small, (size, size), mode="bicubic" if choice < 0.25 else "bilinear")
    if choice < 0.75:
        offsets = torch.arange(-3.0, 4.0)
        kernel = torch.exp(-(offsets**2) / (2 * (0.3 + 1.4 * amount) ** 2))
        kernel = (kernel / kernel.sum()).expand(3, 1, 1, 7)
        padded = functional.pad(images, (3, 3, 3, 3), mode="replicate")
        return functional.conv2d(functional.conv2d(padded, kernel, groups=3), kernel.mT, groups=3)
    return images


def _compress(images: Tensor, generator: torch.Generator) -> Tensor:
    chosen = torch.rand(len(images), generator=generator) < JPEG_SHARE
    for index in torch.nonzero(chosen).flatten().tolist():
        quality = int(torch.randint(25, 96, (), generator=generator))
        buffer = io.BytesIO()
        bytes_ = (images[index].permute(1, 2, 0) * 255.0).round().to(torch.uint8).numpy()
        Image.fromarray(bytes_).save(buffer, "JPEG", quality=quality)
        images[index] = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1).float() / 255.0
    return images
