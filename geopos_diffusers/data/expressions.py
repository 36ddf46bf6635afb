"""Facial expressions as weights of anny's 52 face actions (named as ARKit's blend shapes)."""

import numpy as np


def _both(name: str, weight: float) -> dict[str, float]:
    return {f"{name}Left": weight, f"{name}Right": weight}


EXPRESSIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smiling": {**_both("mouthSmile", 0.9), **_both("cheekSquint", 0.4)},
    "laughing": {
        **_both("mouthSmile", 0.9),
        **_both("cheekSquint", 0.7),
        **_both("eyeSquint", 0.5),
        "jawOpen": 0.4,
    },
    "surprised": {
        **_both("browOuterUp", 0.9),
        **_both("eyeWide", 0.8),
        "browInnerUp": 0.9,
        "jawOpen": 0.55,
    },
    "sad": {**_both("mouthFrown", 0.9), "browInnerUp": 0.9, "mouthShrugLower": 0.4},
    "angry": {
        **_both("browDown", 1.0),
        **_both("noseSneer", 0.5),
        **_both("mouthFrown", 0.5),
        **_both("eyeSquint", 0.4),
    },
    "disgusted": {**_both("noseSneer", 1.0), **_both("mouthUpperUp", 0.7), **_both("browDown", 0.5)},
    "winking": {"eyeBlinkLeft": 1.0, "mouthSmileLeft": 0.6, "cheekSquintLeft": 0.5},
    "eyes closed": _both("eyeBlink", 1.0),
    "mouth open": {"jawOpen": 0.75},
    "lips pursed": {"mouthPucker": 1.0},
    "cheeks puffed": {"cheekPuff": 1.0},
}


def sample_actions(generator: np.random.Generator, expression: str) -> dict[str, float]:
    """Face actions of an expression: its own at 80 to 100% of their strength, with a little of others on both sides."""
    strength = generator.uniform(0.8, 1.0)
    actions = {name: strength * weight for name, weight in EXPRESSIONS[expression].items()}
    for name in ("browInnerUp", "mouthClose", "cheekPuff", "mouthRollLower"):
        slight = generator.uniform(0.0, 0.08)
        actions.setdefault(name, slight if name != "mouthClose" else 0.0)
    return actions
