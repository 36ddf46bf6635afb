import numpy as np
import pytest
from experiments.hand_controls.set_controls import (
    halves_without_difference,
    mixed_set,
    score_difference,
    scores_by_share,
)

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.bootstrap import Interval


def features(count: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 12)).astype(np.float32) + shift


def test_mixed_sets_hold_the_share_and_grow():
    good, defective = np.zeros((40, 1)), 1 + np.arange(40.0)[:, None]
    sets = [mixed_set(good, defective, share, seed=0) for share in (0, 0.1, 0.5, 1)]
    assert [int((part > 0).sum()) for part in sets] == [0, 4, 20, 40]
    assert {*sets[1][sets[1] > 0]} < {*sets[2][sets[2] > 0]}
    with pytest.raises(DataError, match="needs 40 defective images, not 5"):
        mixed_set(good, defective[:5], 1.0, seed=0)


def test_distances_rise_with_the_share():
    scores = scores_by_share(features(200, 0), features(200, 1, shift=1.0), features(200, 2), seed=0)
    for name in ("fid", "kid", "cmmd"):
        assert scores[name] == sorted(scores[name])
    assert scores["precision"][0] > scores["precision"][-1] + 0.2


def test_difference_by_hand():
    result = score_difference(Interval(1.0, 0.7, 1.5), Interval(3.0, 2.6, 3.4))
    assert result.value == pytest.approx(2)
    assert result.low == pytest.approx(2 - (0.4**2 + 0.5**2) ** 0.5)
    assert result.high == pytest.approx(2 + (0.4**2 + 0.3**2) ** 0.5)
    assert score_difference(Interval(1.0, None, None), result) == Interval(None, None, None)


def test_halves_of_one_set_do_not_differ():
    held = halves_without_difference(features(80, 0), features(80, 1), draws=12, seed=0)
    assert all(share >= 0.8 for share in held.values())


def test_too_few_images_have_no_share():
    assert set(halves_without_difference(features(6, 0), features(9, 1), draws=2, seed=0).values()) == {None}
