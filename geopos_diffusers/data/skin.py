"""Colours: the range of human skin tones, named background colours, and light."""

import numpy as np

from .rendering import Light, from_srgb

# The ten swatches of the Monk Skin Tone scale (Ellis Monk, 2022; skintone.google), sRGB.
MONK_SCALE = np.array(
    [
        [246, 237, 228],
        [243, 231, 219],
        [247, 234, 208],
        [234, 218, 186],
        [215, 189, 150],
        [160, 126, 86],
        [130, 92, 67],
        [96, 65, 52],
        [58, 49, 42],
        [41, 36, 32],
    ],
    dtype=np.float64,
)
TONES = ("light", "medium", "brown", "dark")
_TONE_ENDS = (3.5, 5.5, 7.5)  # on the Monk scale of 1 to 10
BACKGROUNDS = {
    "white": (240, 240, 238),
    "gray": (128, 130, 132),
    "black": (22, 22, 25),
    "red": (150, 40, 48),
    "yellow": (226, 214, 120),
    "green": (70, 140, 84),
    "teal": (52, 140, 146),
    "blue": (62, 104, 180),
    "purple": (112, 72, 150),
    "pink": (222, 176, 208),
}
# Cube roots of linear light are near to even steps for the eye.
_BACKGROUND_STEPS = {name: np.cbrt(from_srgb(np.array(colour))) for name, colour in BACKGROUNDS.items()}
BACKGROUND_KINDS = ("plain", "gradient", "both")
# The swatches are chalky beside photographs of skin: factors that redden the lightest and the darkest tone.
_MIN_CONTRAST = 0.22
_BLOOD = np.array([[0.90, 0.74, 0.64], [1.25, 1.05, 0.98]])


def name_tone(monk: float) -> str:
    """The word for a position in [1, 10] on the Monk scale."""
    return TONES[int(np.searchsorted(_TONE_ENDS, monk))]


def skin_albedo(monk: float, warmth: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Linear RGB [3] of the outer side and of the palm (or lips) for a tone in [1, 10].

    Palms hardly tan: on dark skin they are much lighter and redder than the back of the hand. `warmth` in [-1, 1]
    shifts the hue from cool to warm.
    """
    position = float(np.clip(monk, 1.0, 10.0)) - 1.0
    low = min(int(position), len(MONK_SCALE) - 2)
    swatch = MONK_SCALE[low] + (position - low) * (MONK_SCALE[low + 1] - MONK_SCALE[low])
    blood = _BLOOD[0] + position / 9.0 * (_BLOOD[1] - _BLOOD[0])
    outer = np.clip(from_srgb(swatch) * blood * (1.0 + 0.06 * warmth * np.array([1.0, 0.0, -1.0])), 0.02, 0.9)
    inner = from_srgb(np.array([214.0, 158.0, 134.0]))
    share = 0.15 + 0.025 * position
    return outer, (1.0 - share) * outer + share * inner


def sample_light(generator: np.random.Generator) -> Light:
    """A lamp in front of and mostly above the subject, white, warm or cool, with surrounding light."""
    azimuth = generator.uniform(0.0, 2.0 * np.pi)
    slant = generator.uniform(0.2, 0.9)
    direction = np.array([slant * np.cos(azimuth), slant * (0.25 + 0.75 * np.sin(azimuth)), 1.0])
    warmth = generator.uniform(-1.0, 1.0)
    tint = np.array([1.0 + 0.07 * warmth, 1.0, 1.0 - 0.09 * warmth])
    strength = generator.uniform(0.65, 0.95)
    return Light(
        direction=direction / np.linalg.norm(direction),
        colour=strength * tint,
        ambient=generator.uniform(0.18, 0.34) * (2.0 - tint),
        softness=generator.uniform(0.05, 0.3),
    )


def sample_background(
    generator: np.random.Generator, size: int, kind: str, colours: tuple[str, ...], skin: np.ndarray
) -> tuple[str, np.ndarray]:
    """A background's name and its linear RGB image [S, S, 3].

    `kind` is one of BACKGROUND_KINDS. Names: "blue", or "blue to white" for a gradient. Colours too like `skin`
    (linear RGB [3]) to see the subject's outline are left out.
    """
    tone = np.cbrt(skin)
    contrast = {name: np.abs(_BACKGROUND_STEPS[name] - tone).max() for name in colours}
    names = [name for name in colours if contrast[name] > _MIN_CONTRAST]
    if len(names) < 2:
        names = sorted(colours, key=contrast.__getitem__)[-2:]

    def colour_of(name: str) -> np.ndarray:
        return np.clip(from_srgb(np.array(BACKGROUNDS[name]) + generator.uniform(-10.0, 10.0, 3)), 0.0, 1.0)

    first, second = generator.choice(len(names), size=2, replace=False)
    gradient = kind == "gradient" or (kind == "both" and generator.random() < 0.5)
    start = colour_of(names[first])
    if not gradient:
        return names[first], np.broadcast_to(start, (size, size, 3))
    end = colour_of(names[second])
    angle = generator.uniform(0.0, 2.0 * np.pi)
    axis = (np.arange(size) + 0.5) / size * 2.0 - 1.0
    ramp = (axis[None, :] * np.cos(angle) + axis[:, None] * np.sin(angle)) / np.sqrt(2.0)
    share = np.clip(0.5 + 0.7 * ramp, 0.0, 1.0)[..., None]
    return f"{names[first]} to {names[second]}", (1.0 - share) * start + share * end
