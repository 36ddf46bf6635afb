import math

import pytest

from geopos_diffusers.training.rate_grid import LARGEST_GRID, best_rate, is_bracketed, sweep_rates


@pytest.mark.parametrize(
    ("losses", "best", "bracketed"),
    [({1: 3.0, 2: 1.0, 3: 2.0}, 2, True), ({1: 1.0, 2: 2.0}, 1, False), ({1: float("nan"), 2: 5.0}, 2, False)],
)
def test_best_rate(losses, best, bracketed):
    assert best_rate(losses) == best
    assert is_bracketed(losses) is bracketed


@pytest.mark.parametrize(("optimum", "rates"), [(0.01, [0.01, 0.02]), (0.08, [0.01, 0.02]), (0.02, [0.02])])
def test_the_grid_grows_until_the_best_rate_is_bracketed(optimum, rates):
    asked = []

    def measure(new):
        asked.extend(new)
        return [math.log(rate / optimum) ** 2 for rate in new]

    losses = sweep_rates(rates, measure)
    assert is_bracketed(losses)
    assert best_rate(losses) == pytest.approx(optimum)
    assert list(losses) == sorted(asked)  # each rate once


def test_a_grid_without_an_optimum_ends():
    losses = sweep_rates([1e-3, 1e-2], lambda new: [-rate for rate in new])
    assert len(losses) == LARGEST_GRID
    assert not is_bracketed(losses)


def test_rates_at_which_training_diverges_bracket_the_best():
    losses = sweep_rates([0.01, 0.02], lambda new: [1 / rate if rate < 0.05 else math.nan for rate in new])
    assert list(losses) == [0.01, 0.02, 0.04, 0.08]
    assert best_rate(losses) == 0.04
    assert is_bracketed(losses)
