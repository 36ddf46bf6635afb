"""The course of the learning rate, a pure function of the step: there is no scheduler state to save."""

import math
from collections.abc import Callable


def learning_rate_factor(kind: str, step: int, warmup_steps: int, total_steps: int) -> float:
    """The share of the peak learning rate that optimizer step `step` (counted from 0) uses.

    Args:
        kind: constant, linear (down to 0 at total_steps) or cosine (half a period, down to 0 at total_steps).
        warmup_steps: steps of linear rise; the first of them already moves, with 1 / warmup_steps.

    Raises:
        ValueError: an unknown kind.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    if kind == "constant":
        return 1.0
    if kind == "linear":
        return 1.0 - progress
    if kind == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    raise ValueError(f"learning rate schedule {kind!r} is not one of constant, linear, cosine")


def cosine_schedule(peak: float, warmup_steps: int, total_steps: int) -> Callable[[int], float]:
    """The learning rate of a step, counted from 0: a linear rise to `peak`, then half a cosine down to 0."""
    return lambda step: peak * learning_rate_factor("cosine", step, warmup_steps, total_steps)
