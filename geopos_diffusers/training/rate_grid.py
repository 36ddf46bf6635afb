"""The grid of a learning-rate sweep: which rate is best, and how the grid grows until a worse one is on both sides."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

LARGEST_GRID = 10


def sweep_rates(rates: Iterable[float], measure: Callable[[list[float]], Sequence[float]]) -> dict[float, float]:
    """Losses by learning rate, in the order of the rates. A grid whose best rate is its first or last one grows.

    Args:
        rates: one or more to begin with, all above 0. The grid grows by its own factor (sqrt(10) of one rate) to at
            most 10 rates.
        measure: takes new rates and returns their losses.
    """
    rates = sorted(set(rates))
    losses: dict[float, float] = {}
    factor = (rates[-1] / rates[0]) ** (1 / (len(rates) - 1)) if len(rates) > 1 else math.sqrt(10)
    while new := [rate for rate in rates if rate not in losses]:
        losses |= zip(new, measure(new), strict=True)
        best = best_rate(losses)
        if len(losses) >= LARGEST_GRID:
            break
        if best == min(losses):
            rates.append(round_rate(best / factor))
        elif best == max(losses):
            rates.append(round_rate(best * factor))
    return dict(sorted(losses.items()))


def round_rate(rate: float) -> float:
    """To two digits: the grid 0.01, 0.03, 0.1 goes on with 0.32."""
    return float(f"{rate:.1e}")


def best_rate(losses: Mapping[float, float]) -> float:
    """The rate of the lowest loss; a loss that is not a number is never the lowest."""
    return min(losses, key=lambda rate: (math.isnan(losses[rate]), losses[rate]))


def is_bracketed(losses: Mapping[float, float]) -> bool:
    """Whether the best rate has a worse one on both sides."""
    return min(losses) < best_rate(losses) < max(losses)
