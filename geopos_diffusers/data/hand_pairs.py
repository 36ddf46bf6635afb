"""Two hands in one image: what they share, whether they lie apart, and one drawn over the other."""

from dataclasses import replace

import numpy as np

from .hand_options import HandOptions
from .hand_scenes import Drawing, Scene, sample_scene
from .rendering import Rendering, to_srgb

_SHARED = ("monk", "outer", "inner", "light", "background_name", "background")
_GAP = 0.02  # least distance of two hands' boxes, as a share of the image


def sample_pair(generator: np.random.Generator, options: HandOptions, size: int, patience: float) -> list[Scene]:
    """Two random scenes of one skin, light and background, anywhere in the image.

    `patience`, in [0, 1), brings the largest size down from that of the options to the smallest.
    """
    first, second = (sample_scene(generator, options, size) for _ in range(2))
    low, high = options.sizes
    scenes = []
    for scene in (first, second):
        fill = generator.uniform(low, high - (high - low) * patience)
        x, y = generator.uniform(-1.0, 1.0, 2)
        shared = {name: getattr(first, name) for name in _SHARED}
        scenes.append(replace(scene, fill=fill, shift=(float(x), float(y)), **shared))
    return scenes


def apart(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two boxes [4], in shares of the image, leave a gap between them."""
    return bool((first[:2] > second[2:] + _GAP).any() or (second[:2] > first[2:] + _GAP).any())


def cover(upper: Drawing, lower: Drawing) -> int:
    """Pixels of the lower hand's box in which the upper one would lie over it."""
    x0, y0 = np.floor(lower.box[:2]).astype(int).clip(0)
    x1, y1 = np.ceil(lower.box[2:]).astype(int)
    both = (upper.rendering.mask > 0) & (lower.rendering.mask > 0)
    return int(both[y0:y1, x0:x1].sum())


def lay_over(lower: Rendering, upper: Rendering, background: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One rendering over another over a background: pixels [S, S, 3] of bytes, mask and depth [S, S]."""
    free = 1.0 - upper.mask[..., None]
    behind = lower.colour + (1.0 - lower.mask[..., None]) * background
    mask = 1.0 - (1.0 - upper.mask) * (1.0 - lower.mask)
    return to_srgb(upper.colour + free * behind), mask, np.where(upper.mask > 0, upper.depth, lower.depth)
