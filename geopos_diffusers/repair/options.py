"""How hands are repaired: options of the library and of `geopos repair`, with their ranges."""

import math
from dataclasses import dataclass

from ..errors import ConfigError

LARGEST_MARGIN = 2.0
DEFAULT_SHARE = 0.6
LARGEST_SIZE = 8192  # pixels; squares of more fit into no memory


@dataclass(frozen=True)
class RepairOptions:
    """How each hand is inpainted and chosen.

    Attributes:
        candidates: variants of a hand, 1 or more; variant i has seed `seed + i`.
        strength: how much of the noise is put on the hand before it is drawn anew, above 0 and up to 1. At 1 nothing
            of the old hand is left.
        margin: what is masked beyond a hand's box on each side, as a share of its longer side, 0 to 2.
        share: of the side of the square that the model is given, how much the hand's longer side fills, 0.1 to 1; None
            for the adapter's mean box if it was trained with frames, and 0.6 otherwise.
        size: side in pixels of the square that the model is given, 8 to 8192, and a multiple of what the model makes
            (8 or 16 for most); None for the model's own.
        steps: denoising steps of a whole generation, of which `strength` takes its share.
        guidance_scale: None for the pipeline's own default.
        batch_size: variants made at a time. The last digits of an image may depend on it.
        min_score: hands to which the judge gives so much, [0, 1], stay as they are; None to try all.
        allow_worse: take the best variant even where the judge finds the old hand better.
        any_number: do not look whether as many fingers are raised as the prompt says.

    Example:
        >>> RepairOptions(candidates=8, min_score=0.5).strength
        0.9
    """

    candidates: int = 4
    strength: float = 0.9
    margin: float = 0.25
    share: float | None = None
    size: int | None = None
    steps: int = 25
    guidance_scale: float | None = None
    negative_prompt: str | None = None
    batch_size: int = 8
    seed: int = 0
    min_score: float | None = None
    allow_worse: bool = False
    any_number: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigError for a value outside its range. The message begins with the attribute's name."""
        for name in ("candidates", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more; got {getattr(self, name)}")
        if self.size is not None and not 8 <= self.size <= LARGEST_SIZE:
            raise ConfigError(f"size must be between 8 and {LARGEST_SIZE} pixels; got {self.size}")
        if not 0 <= self.seed < 2**63 - self.candidates:
            raise ConfigError(f"seed must be between 0 and 2**63 - 1; got {self.seed}")
        if not 0 < self.strength <= 1:
            raise ConfigError(f"strength must be above 0 and up to 1; got {self.strength}")
        if int(self.strength * self.steps) < 1:
            raise ConfigError(f"strength {self.strength:g} of {self.steps} steps leaves none; give more of either")
        if not 0 <= self.margin <= LARGEST_MARGIN:
            raise ConfigError(f"margin must be between 0 and {LARGEST_MARGIN:g}; got {self.margin}")
        if self.share is not None and not 0.1 <= self.share <= 1:
            raise ConfigError(f"share must be between 0.1 and 1; got {self.share}")
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise ConfigError(f"min_score must be between 0 and 1; got {self.min_score}")
        if self.guidance_scale is not None and not math.isfinite(self.guidance_scale):
            raise ConfigError(f"guidance_scale must be a finite number; got {self.guidance_scale}")
