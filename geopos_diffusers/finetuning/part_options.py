"""What can be trained, which parts go together, and the default learning rate of each."""

import re

from ..errors import ConfigError

PARTS = ("geoconv", "bias", "lora", "full")
# Peak learning rates: for each part the best of a sweep on the packaged model in 300 steps (docs/results/
# trained_parts.md). Large models and long runs take less. That of the whole UNet was not swept.
LEARNING_RATES = {"geoconv": 0.3, "taps": 0.3, "bias": 0.95, "lora": 1e-2, "full": 1e-4}
PART_RATES = {part: f"{part}_learning_rate" for part in ("geoconv", "bias", "lora")}
EXCLUSIVE = (
    ("geoconv", "bias", "the geometry weights hold each layer's bias as their constant term; leave bias out"),
    ("bias", "full", "the whole UNet holds its biases; leave bias out"),
    ("lora", "full", "LoRA factors add nothing to a UNet that is trained whole; leave lora out"),
)


def check_parts(train: str, parts: tuple[str, ...]) -> None:
    """Refuse parts that do not exist, that are named twice, or of which one holds the other.

    Args:
        train: the option's value. parts: the same, split.

    Raises:
        ConfigError: they cannot be trained together.
    """
    if not parts or set(parts) - set(PARTS) or len(set(parts)) < len(parts):
        raise ConfigError(f"train must be one or more of {', '.join(PARTS)}, joined by +; got {train!r}")
    for first, second, reason in EXCLUSIVE:
        if first in parts and second in parts:
            raise ConfigError(f"train cannot be {train}: {reason}")


def names_or_expression(value: list[str] | str | None) -> list[str] | str | None:
    """A single value with a character that no layer name has is a regular expression."""
    if isinstance(value, list) and len(value) == 1 and re.search(r"[^\w.]", value[0]):
        return value[0]
    return value


def as_tuple(names: list[str] | str | None) -> tuple[str, ...] | str | None:
    return tuple(names) if isinstance(names, list) else names
