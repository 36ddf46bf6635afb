import math

import pytest
from experiments.gan.collapse import find_collapse, surviving_share

from geopos_diffusers.errors import DataError

EPOCHS = [10, 20, 30, 40, 50, 60, 70]


@pytest.mark.parametrize(
    ("covered", "learnt", "collapsed", "recovered"),
    [
        ([0.1, 0.3, 0.5, 0.6, 0.6, 0.5, 0.6], 20, None, None),  # healthy
        ([0.1, 0.6, 0.2, 0.1, 0.1, 0.1, 0.1], 20, 30, None),  # collapsed for good
        ([0.1, 0.6, 0.2, 0.1, 0.6, 0.2, 0.1], 20, None, None),  # never for three evaluations in a row
        ([0.1, 0.6, 0.2, 0.1, 0.2, 0.3, 0.1], 20, 30, 60),  # comes back to half of its best
        ([0.1, 0.1, 0.19, 0.1, 0.0, 0.0, 0.0], None, None, None),  # never learnt: too low to collapse
        ([0.4, 0.5, 0.6, 0.7, 0.34, 0.34, 0.34], 10, 50, None),  # half of the best share so far, not of the first
        ([0.4, 0.5, 0.6, 0.7, 0.36, 0.36, 0.36], 10, None, None),
        ([0.6, 0.6, 0.6, 0.6, 0.6, 0.1, 0.1], 10, None, None),  # too short before the end to tell
    ],
)
def test_criterion(covered, learnt, collapsed, recovered):
    result = find_collapse(EPOCHS, covered)
    assert (result.learnt_at, result.collapsed_at, result.recovered_at) == (learnt, collapsed, recovered)
    assert (result.best, result.last) == (max(covered), covered[-1])


def test_options():
    covered = [0.6, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]
    assert find_collapse(EPOCHS, covered).collapsed_at is None
    assert find_collapse(EPOCHS, covered, fall=0.75).collapsed_at == 20
    assert find_collapse(EPOCHS, covered, fall=0.75, patience=7).collapsed_at is None
    assert find_collapse(EPOCHS, covered, learnt=0.7).learnt_at is None


def test_survival():
    healthy = find_collapse(EPOCHS, [0.6] * 7)
    collapsed = find_collapse(EPOCHS, [0.6, 0.6, 0.6, 0.1, 0.1, 0.1, 0.1])
    never = find_collapse(EPOCHS, [0.1] * 7)
    shares = [surviving_share([healthy, collapsed, never], epoch) for epoch in (30, 40, 70)]
    assert shares == [1.0, 0.5, 0.5]
    assert math.isnan(surviving_share([never], 70))


def test_bad_input():
    with pytest.raises(DataError, match="0 epochs"):
        find_collapse([], [])
    with pytest.raises(DataError, match="2 epochs and 1 shares"):
        find_collapse([1, 2], [0.5])
