import numpy as np
import pytest
from hand_cases import BONES, many_hands, right_hand, rotation

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.joint_ratio import (
    SHORTEST_BONE,
    joint_ratio_differences,
    joint_ratios,
    mean_confidence,
    mean_joint_ratio_difference,
    mean_joint_ratios,
)


class TestRatios:
    def test_by_hand(self):
        ratios = joint_ratios(right_hand()).reshape(5, 3)
        np.testing.assert_allclose(ratios[1:, 1:], BONES[:, 1:] / BONES[:, :-1])

    def test_do_not_change_with_position_side_or_size(self):
        hands = many_hands(10)
        moved = 40.0 * hands @ rotation(2) * np.array([-1.0, 1.0, 1.0]) + 7.0
        np.testing.assert_allclose(joint_ratios(moved), joint_ratios(hands))

    def test_pose_does_not_count(self):
        open_hand, fist = joint_ratios(right_hand(0.0)), joint_ratios(right_hand(80.0))
        np.testing.assert_allclose(open_hand, fist)

    def test_a_bone_without_length_is_cut_off(self):
        hand = right_hand()
        hand[7] = hand[6]
        ratios = joint_ratios(hand)
        assert ratios.max() <= 1 / SHORTEST_BONE


class TestDifference:
    def test_zero_for_the_mean_itself(self):
        hand = right_hand()[None]
        assert mean_joint_ratio_difference(hand, hand) == 0

    def test_by_hand(self):
        hand = right_hand()
        longer = hand.copy()
        longer[8] += hand[8] - hand[7]  # the index's last bone twice as long: its ratio goes from 5 / 7 to 10 / 7
        difference = joint_ratio_differences(longer, mean_joint_ratios(hand[None]))
        assert difference == pytest.approx(BONES[0, 2] / BONES[0, 1] / 15)

    def test_monotone_in_the_share_of_long_fingers(self):
        reference, hands = many_hands(100, seed=1), many_hands(100)
        faulty = hands.copy()
        faulty[:, 8] += hands[:, 8] - hands[:, 7]
        values = [
            mean_joint_ratio_difference(np.concatenate([faulty[:bad], hands[bad:]]), reference)
            for bad in (0, 10, 25, 50, 100)
        ]
        assert values == sorted(values)
        assert values[-1] > 1.5 * values[0]

    def test_no_hands(self):
        assert np.isnan(mean_joint_ratio_difference(np.zeros((0, 21, 3)), many_hands(3)))


class TestConfidence:
    def test_an_image_without_a_hand_counts_as_none(self):
        assert mean_confidence([0.9, None, 0.6]) == pytest.approx(0.5)
        assert np.isnan(mean_confidence([]))


class TestBadInput:
    def test_reference(self):
        with pytest.raises(DataError, match="with a hand or more"):
            mean_joint_ratios(np.zeros((0, 21, 3)))
        with pytest.raises(DataError, match="with a hand or more"):
            mean_joint_ratios(right_hand())

    def test_one_place(self):
        with pytest.raises(DataError, match="all in one place"):
            joint_ratios(np.ones((21, 3)))
