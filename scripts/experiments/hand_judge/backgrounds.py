"""Backgrounds of the judge's training images: plain, gradients, paper, noise fields, stripes, other people's skin."""

import numpy as np
from PIL import Image

from geopos_diffusers.data.rendering import to_srgb
from geopos_diffusers.data.skin import skin_albedo

KINDS = {"plain": 0.3, "gradient": 0.25, "paper": 0.12, "noise": 0.15, "stripes": 0.08, "heads": 0.1}


def draw_backgrounds(count: int, size: int, heads: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """[N, S, S, 3] bytes, of the KINDS in their shares. `heads` [M, S, S, 4] are pasted, enlarged, onto some."""
    kinds = generator.choice(list(KINDS), size=count, p=list(KINDS.values()))
    return np.stack([draw_background(kind, size, heads, generator) for kind in kinds])


def draw_background(kind: str, size: int, heads: np.ndarray | None, generator: np.random.Generator) -> np.ndarray:
    """[S, S, 3] bytes, of one of the KINDS. `heads`: None where the kind is not "heads"."""
    first, second = _colour(generator), _colour(generator)
    if kind == "plain":
        share = np.zeros((size, size))
    elif kind == "gradient":
        share = np.clip(0.5 + generator.uniform(0.4, 1.0) * _ramp(size, generator), 0.0, 1.0)
    elif kind == "paper":  # a sheet lit from one side, darker towards the edges
        bright = generator.uniform(150.0, 245.0) + generator.uniform(-12.0, 12.0, 3)
        first, second = bright, bright * generator.uniform(0.35, 0.9)
        axis = np.linspace(-1.0, 1.0, size)
        distance = (axis[None] - generator.uniform(-0.5, 0.5)) ** 2 + (
            axis[:, None] - generator.uniform(-0.5, 0.5)
        ) ** 2
        share = np.clip(distance * generator.uniform(0.15, 0.6), 0.0, 1.0)
    elif kind == "noise":
        share = noise_field(size, generator)
    elif kind == "stripes":
        wave = np.sin(_ramp(size, generator) * generator.uniform(8.0, 60.0))
        share = 0.5 + 0.5 * (np.sign(wave) if generator.random() < 0.5 else wave)
    elif heads is None:
        raise ValueError("a background of heads needs some")
    else:
        plain = np.broadcast_to(first, (size, size, 3))
        return paste(enlarge(heads[generator.integers(len(heads))], generator), plain)
    picture = first + share[..., None] * (second - first)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _colour(generator: np.random.Generator) -> np.ndarray:
    """sRGB [3]: any colour, a grey, or one of skin."""
    kind = generator.random()
    if kind < 0.2:
        return to_srgb(skin_albedo(generator.uniform(1.0, 10.0))[0] * generator.uniform(0.3, 1.1)).astype(float)
    if kind < 0.5:
        return np.clip(generator.uniform(10.0, 250.0) + generator.uniform(-8.0, 8.0, 3), 0.0, 255.0)
    return generator.uniform(10.0, 250.0, 3)


def _ramp(size: int, generator: np.random.Generator) -> np.ndarray:
    angle, axis = generator.uniform(0.0, 2.0 * np.pi), np.linspace(-1.0, 1.0, size)
    return (axis[None] * np.cos(angle) + axis[:, None] * np.sin(angle)) / np.sqrt(2.0)


def noise_field(size: int, generator: np.random.Generator) -> np.ndarray:
    """Value noise [S, S] in [0, 1]: grids of random values at several scales, enlarged and added."""
    total, steepness = np.zeros((size, size)), generator.uniform(0.4, 0.9)
    for octave in range(1, 6):
        cells = Image.fromarray(generator.random((2**octave + 1, 2**octave + 1)).astype(np.float32))
        total += steepness**octave * np.asarray(cells.resize((size, size), Image.Resampling.BICUBIC))
    low, high = total.min(), total.max()
    return (total - low) / max(high - low, 1e-6)


def enlarge(cut: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Part of an RGBA picture [S, S, 4], enlarged to its whole size."""
    size = len(cut)
    side = int(size * generator.uniform(0.35, 1.0))
    top, left = generator.integers(0, size - side + 1, 2)
    part = Image.fromarray(cut[top : top + side, left : left + side])
    return np.asarray(part.resize((size, size), Image.Resampling.BILINEAR))


def paste(cut: np.ndarray, background: np.ndarray) -> np.ndarray:
    """An RGBA picture on a background [S, S, 3], as bytes."""
    cover = cut[..., 3:] / 255.0
    return np.rint(cut[..., :3] * cover + (1.0 - cover) * background).astype(np.uint8)
