"""Which images of a data set are held out: a function of their numbers alone."""

from typing import Any

import numpy as np

from ..errors import ConfigError


def held_out(count: int, share: float) -> np.ndarray:
    """[count] bool: which items are held out, by a hash of their number. More items at the end change none before.

    Raises:
        ConfigError: it is none or all of them.
    """
    # splitmix64, whose values are spread evenly over 64 bits.
    with np.errstate(over="ignore"):
        mixed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    chosen = mixed.astype(np.float64) / 2.0**64 < share
    if not chosen.any() or chosen.all():
        number = int(chosen.sum())
        raise ConfigError(f"validation_split_share {share:g} holds out {number} of {count} images; give another share")
    return chosen


def split_data(data: Any, share: float) -> tuple[Any, Any]:
    """What of a data set is trained on and what is held out. Raises ConfigError where one of them would be empty."""
    chosen = held_out(len(data), share)
    return data.part(np.flatnonzero(~chosen)), data.part(np.flatnonzero(chosen))


def evenly_spaced_part(data: Any, limit: int) -> Any:
    """At most `limit` items out of all of a data set."""
    count = min(limit, len(data))
    return data.part(np.arange(count) * len(data) // count)
