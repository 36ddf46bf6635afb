import itertools

import numpy as np
import pytest

from geopos_diffusers.metrics.finger_count import confusion_matrix, count_fingers, count_scores, raised_fingers

KNUCKLES = np.array([[-0.35, 1.0], [0.0, 1.0], [0.3, 0.95], [0.55, 0.85]])
STRAIGHT = np.array([[0.0, 0.4], [0.0, 0.65], [0.0, 0.9]])
FOLDED = np.array([[0.0, 0.35], [0.0, 0.15], [0.0, -0.05]])
THUMB_OUT = np.array([[-0.3, 0.2], [-0.6, 0.45], [-0.85, 0.65], [-1.1, 0.85]])
THUMB_IN = np.array([[-0.3, 0.2], [-0.45, 0.5], [-0.25, 0.8], [0.0, 1.0]])


def skeleton(raised: tuple[bool, ...]) -> np.ndarray:
    """[21, 2] landmarks of a flat hand, its palm 1 long, with these fingers raised (thumb to pinky)."""
    thumb, *fingers = raised
    parts = [np.zeros((1, 2)), THUMB_OUT if thumb else THUMB_IN]
    for knuckle, up in zip(KNUCKLES, fingers, strict=True):
        parts += [knuckle[None], knuckle + (STRAIGHT if up else FOLDED)]
    return np.concatenate(parts)


HANDS = list(itertools.product([False, True], repeat=5))


class TestRaisedFingers:
    @pytest.mark.parametrize("raised", HANDS)
    def test_every_combination(self, raised):
        assert tuple(raised_fingers(skeleton(raised))) == raised
        assert count_fingers(skeleton(raised)) == sum(raised)

    @pytest.mark.parametrize("degrees", range(0, 360, 30))
    def test_turned_mirrored_moved_scaled(self, degrees):
        angle = np.radians(degrees)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        hands = np.stack([skeleton(raised) for raised in HANDS])
        expected = np.array(HANDS)
        for mirror in (1.0, -1.0):
            moved = (hands * [mirror, 1.0]) @ turn.T * 37.5 + [210.0, -40.0]
            assert (raised_fingers(moved) == expected).all()

    def test_depth_is_not_used(self):
        flat = skeleton((True, True, False, False, True))
        deep = np.concatenate([flat, np.random.default_rng(0).normal(size=(21, 1))], axis=1)
        assert count_fingers(deep) == 3


class TestScores:
    def test_right_and_error(self):
        right, errors = count_scores([3, 3, 0, None, 5], [3, 1, None, 2, 5])
        assert np.array_equal(right, [1, 0, np.nan, np.nan, 1], equal_nan=True)
        assert np.array_equal(errors, [0, 2, np.nan, np.nan, 0], equal_nan=True)

    def test_confusion(self):
        matrix = confusion_matrix([3, 3, 0, 5, 5], [3, 1, None, 5, 5])
        assert matrix.shape == (6, 7)
        assert matrix.sum() == 5
        assert (matrix[3, 3], matrix[3, 1], matrix[0, 6], matrix[5, 5]) == (1, 1, 1, 2)
