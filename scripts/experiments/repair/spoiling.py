"""Photographs of hands, spoiled: a finger erased, smeared or doubled by compositing."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from geopos_diffusers.data.hand_masks import FINGERS
from geopos_diffusers.metrics.finger_count import raised_fingers

WRIST, MIDDLE_KNUCKLE = 0, 9
KINDS = ("erased", "smeared", "doubled")
HALF_WIDTH = 0.19  # of a finger with its outline, in palm lengths (wrist to middle knuckle)
BEYOND = 0.2  # how far the skin reaches beyond the last key point, in palm lengths


def spoil(image: Image.Image, points: np.ndarray, kind: str, generator: np.random.Generator) -> Image.Image:
    """A raised finger of a hand, or any if none is raised, spoiled.

    Args:
        image: RGB. points: key points [21, 2] in pixels, in MediaPipe's order. kind: one of KINDS.
    """
    raised = np.flatnonzero(raised_fingers(points))
    finger = int(generator.choice(raised if len(raised) else np.arange(5)))
    palm = float(np.linalg.norm(points[MIDDLE_KNUCKLE] - points[WRIST]))
    joints = points[FINGERS[finger][1:]]
    mask = _finger_mask(image.size, joints, palm)
    if kind == "erased":
        return Image.composite(Image.new("RGB", image.size, _border_colour(image)), image, mask)
    if kind == "smeared":
        wide = mask.filter(ImageFilter.MaxFilter(2 * round(0.06 * palm) + 1))
        return Image.composite(image.filter(ImageFilter.GaussianBlur(0.2 * palm)), image, wide)
    angle = float(generator.choice([-1.0, 1.0]) * generator.uniform(22.0, 32.0))
    centre = (float(joints[0, 0]), float(joints[0, 1]))
    turned, cut = (picture.rotate(angle, Image.Resampling.BICUBIC, center=centre) for picture in (image, mask))
    return Image.composite(turned, image, cut)


def _finger_mask(size: tuple[int, int], joints: np.ndarray, palm: float) -> Image.Image:
    """From the finger's first joint outwards, with a soft edge, mode L."""
    last = joints[-1] - joints[-2]
    tip = joints[-1] + BEYOND * palm * last / max(float(np.linalg.norm(last)), 1e-6)
    start = joints[0] + 0.35 * (joints[1] - joints[0])
    mask, radius = Image.new("L", size), HALF_WIDTH * palm
    draw = ImageDraw.Draw(mask)
    line = [tuple(map(float, point)) for point in (start, *joints[1:], tip)]
    draw.line(line, fill=255, width=max(1, round(2 * radius)))
    for x, y in line[1:]:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return mask.filter(ImageFilter.GaussianBlur(0.03 * palm))


def _border_colour(image: Image.Image) -> tuple[int, int, int]:
    """The median colour along the image's upper half's edge, where there is no arm."""
    pixels = np.asarray(image)
    edge = np.concatenate([pixels[0], pixels[: len(pixels) // 2, 0], pixels[: len(pixels) // 2, -1]])
    red, green, blue = (int(value) for value in np.median(edge, axis=0))
    return red, green, blue
