"""The course of the learning rate, a pure function of the step: there is no scheduler state to save."""

import math
from collections.abc import Callable
from typing import Literal, get_args

Schedule = Literal[
    "constant", "cosine", "linear", "cosine_with_restarts", "polynomial", "one_cycle", "rex", "warmup_stable_decay"
]
SCHEDULES: tuple[str, ...] = get_args(Schedule)
ONE_CYCLE_RISE, ONE_CYCLE_START, ONE_CYCLE_END = 0.3, 1 / 25, 1 / 25e4  # torch's OneCycleLR has the same defaults


def learning_rate_factor(
    kind: str,
    step: int,
    warmup_steps: int,
    total_steps: int,
    *,
    cycles: int = 1,
    power: float = 1.0,
    decay_share: float = 0.2,
) -> float:
    """The share of the peak learning rate that optimizer step `step` (counted from 0) uses.

    Args:
        kind: of SCHEDULES. constant stays at the peak. linear, polynomial and cosine (half a period) fall to 0 at
            total_steps; cosine_with_restarts does so `cycles` times, from the peak each time. rex falls to 0 slowly and
            then fast (arXiv 2107.04197). warmup_stable_decay stays at the peak and falls linearly to 0 over the last
            `decay_share` of the steps (arXiv 2404.06395). one_cycle rises from 1/25 for 30% of the steps and falls to
            1/250,000, both by half a cosine (arXiv 1708.07120).
        warmup_steps: steps of linear rise; the first of them already moves, with 1 / warmup_steps.
        power: of polynomial; 1 is linear.

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
    if kind == "cosine_with_restarts":
        return 0.5 * (1.0 + math.cos(math.pi * (cycles * progress % 1.0))) if progress < 1 else 0.0
    if kind == "polynomial":
        return (1.0 - progress) ** power
    if kind == "rex":
        return (1.0 - progress) / (0.5 + 0.5 * (1.0 - progress))
    if kind == "warmup_stable_decay":
        return min(1.0, (1.0 - progress) / decay_share)
    if kind == "one_cycle":
        return _one_cycle(step - warmup_steps, total_steps - warmup_steps)
    raise ValueError(f"learning rate schedule {kind!r} is not one of {', '.join(SCHEDULES)}")


def _one_cycle(step: int, steps: int) -> float:
    """Its last step has the lowest rate, as in torch: the fall ends at steps - 1, and stays there."""
    top, last = max(ONE_CYCLE_RISE * steps - 1, 0.0), max(1, steps - 1)
    if step <= top:
        return _cosine_between(ONE_CYCLE_START, 1.0, step / top if top else 1.0)
    return _cosine_between(1.0, ONE_CYCLE_END, min(1.0, (step - top) / max(1e-9, last - top)))


def _cosine_between(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * progress))


def cosine_schedule(peak: float, warmup_steps: int, total_steps: int) -> Callable[[int], float]:
    """The learning rate of a step, counted from 0: a linear rise to `peak`, then half a cosine down to 0."""
    return lambda step: peak * learning_rate_factor("cosine", step, warmup_steps, total_steps)
