import numpy as np
import pytest
from hand_cases import many_hands, right_hand

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.joint_error import closest_hand, joint_distances, joint_error, relative_joint_error

POSE = right_hand()[:, :2] * 100


class TestSum:
    def test_zero_for_the_pose(self):
        assert joint_error(POSE, POSE) == 0
        assert relative_joint_error(POSE, POSE) == 0

    def test_sums_pixel_distances_over_the_joints(self):
        assert joint_error(POSE + np.array([3.0, 4.0]), POSE) == pytest.approx(21 * 5.0)
        moved = POSE.copy()
        moved[8] += np.array([0.0, 7.0])
        assert joint_error(moved, POSE) == pytest.approx(7.0)
        assert np.flatnonzero(joint_distances(moved, POSE)).tolist() == [8]

    def test_depth_does_not_count(self):
        deep = np.concatenate([POSE, np.full((21, 1), 50.0)], axis=1)
        assert joint_error(deep, POSE) == 0

    def test_many_at_once(self):
        hands = many_hands(6)[..., :2] * 100
        together = joint_error(hands, POSE)
        assert together.shape == (6,)
        np.testing.assert_allclose(together, [joint_error(hand, POSE) for hand in hands])


class TestShareOfTheHand:
    def test_image_size_does_not_count_but_for_the_sum(self):
        found = many_hands(1)[0, :, :2] * 100
        assert joint_error(4 * found, 4 * POSE) == pytest.approx(4 * joint_error(found, POSE))
        assert relative_joint_error(4 * found, 4 * POSE) == pytest.approx(relative_joint_error(found, POSE))

    def test_by_hand(self):
        side = np.ptp(POSE, axis=0).max()
        assert relative_joint_error(POSE + np.array([0.0, 0.1 * side]), POSE) == pytest.approx(0.1)

    def test_size_of_what_was_generated_does_not_count(self):
        assert relative_joint_error(2 * POSE, POSE) > relative_joint_error(1.5 * POSE, POSE)


class TestClosestHand:
    def test_whatever_its_side(self):
        mirrored = POSE * np.array([-1.0, 1.0])
        assert closest_hand(np.stack([mirrored + 200, POSE + 3]), POSE) == 1
        assert closest_hand(np.stack([mirrored + 200, POSE + 3]), mirrored + 190) == 0


class TestBadInput:
    def test_shapes(self):
        with pytest.raises(DataError, match=r"keypoints has shape \[21, 3\]"):
            joint_error(POSE, right_hand())
        with pytest.raises(DataError, match=r"landmarks has shape \[20, 2\]"):
            joint_error(POSE[:20], POSE)
        with pytest.raises(DataError, match="do not match"):
            joint_error(np.stack([POSE] * 3), np.stack([POSE] * 2))

    def test_not_finite(self):
        bad = POSE.copy()
        bad[3] = np.nan
        with pytest.raises(DataError, match="2 values that are not finite"):
            joint_error(bad, POSE)

    def test_no_size(self):
        with pytest.raises(DataError, match="all in one place"):
            relative_joint_error(POSE, np.ones((21, 2)))

    def test_no_hand(self):
        with pytest.raises(DataError, match="no hand"):
            closest_hand(np.zeros((0, 21, 2)), POSE)
