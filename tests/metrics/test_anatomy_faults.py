import numpy as np
import pytest
from experiments.hand_anatomy.faults import FAULTS
from hand_cases import many_hands, right_hand, rotation

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.anatomy import anatomy_faults
from geopos_diffusers.metrics.anatomy_faults import FLEXION, FLEXION_TOLERANCE, segments_cross
from geopos_diffusers.metrics.hand_angles import hand_angles
from geopos_diffusers.metrics.hand_skeleton import palm_frame

RULES = ("joint_limits", "finger_order", "crossing", "palm")
PIXELS = np.array([90.0, -90.0, 90.0])  # the same hand in an image of about 200 pixels, y downwards


def faults_of(hand: np.ndarray) -> dict[str, np.ndarray]:
    return anatomy_faults(hand, hand * PIXELS)


def names_of(hand: np.ndarray) -> set[str]:
    return {rule for rule, broken in faults_of(hand).items() if broken}


class TestProperHands:
    def test_none(self):
        faults = faults_of(many_hands(200))
        assert tuple(faults) == RULES
        assert {rule: broken.sum() for rule, broken in faults.items()} == dict.fromkeys(RULES, 0)

    @pytest.mark.parametrize("flexion", [0.0, 30.0, [80.0, 100.0, 60.0]])
    def test_from_open_to_fist(self, flexion):
        assert not names_of(right_hand(np.asarray(flexion)))

    def test_left_hands(self):
        faults = faults_of(many_hands(50) * np.array([-1.0, 1.0, 1.0]))
        assert not any(broken.any() for broken in faults.values())


class TestJointLimits:
    @pytest.mark.parametrize("joint", range(3))
    def test_bent_back(self, joint):
        flexion = np.full((4, 3), 15.0)
        for degrees, expected in ((-5.0, set()), (-75.0, {"joint_limits"})):
            flexion[2, joint] = degrees
            assert names_of(right_hand(flexion)) == expected

    def test_bent_too_far(self):
        flexion = np.full((4, 3), 15.0)
        flexion[0, 2] = FLEXION[5, 1] + FLEXION_TOLERANCE[5] + 5.0
        assert names_of(right_hand(flexion)) == {"joint_limits"}

    def test_sideways_at_a_hinge(self):
        hand = right_hand()
        hand[11:13] = hand[10] + (hand[11:13] - hand[10]) @ turn_about_z(60).T
        assert names_of(hand) == {"joint_limits"}

    def test_both_readings_must_agree(self):
        flexion = np.full((4, 3), 15.0)
        flexion[1, 1] = -60.0
        bent, proper = right_hand(flexion), right_hand()
        assert not anatomy_faults(bent, proper * PIXELS)["joint_limits"]
        assert not anatomy_faults(proper, bent * PIXELS)["joint_limits"]
        assert anatomy_faults(bent, bent * PIXELS)["joint_limits"]


class TestFingerOrder:
    @pytest.mark.parametrize("pair", [(1, 2), (2, 3), (3, 4), (1, 4)])
    def test_swapped(self, pair):
        hand = right_hand()
        first, second = (np.arange(4 * finger + 1, 4 * finger + 5) for finger in pair)
        hand[[*first, *second]] = hand[[*second, *first]]
        assert "finger_order" in names_of(hand)

    def test_thumb_on_the_other_side(self):
        hand = right_hand()
        hand[1:5, 0] *= -1
        assert "finger_order" in names_of(hand)


class TestCrossing:
    def crossed(self, flexion: float) -> np.ndarray:
        hand = right_hand(flexion)
        hand[6:9], hand[10:13] = hand[10:13].copy(), hand[6:9].copy()
        return hand

    def test_first_bones_of_straight_fingers(self):
        assert "crossing" in names_of(self.crossed(5.0))

    def test_bent_fingers_may(self):
        assert "crossing" not in names_of(self.crossed(50.0))

    def test_tips_of_neighbours_may(self):
        hand = right_hand(5.0, spread=0.0)
        index, middle = hand[8, 0].copy(), hand[12, 0].copy()
        hand[8, 0], hand[12, 0] = middle, index
        hand[12, 2] -= 0.1
        assert "crossing" not in names_of(hand)

    def test_seen_from_the_side(self):
        turned = self.crossed(5.0) @ np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
        assert "crossing" not in names_of(turned)

    def test_segments(self):
        points = [np.array(point, dtype=float) for point in ([0, 0], [2, 2], [0, 2], [2, 0], [3, 3], [3, 1])]
        assert segments_cross(*points[:4])
        assert not segments_cross(points[0], points[1], points[4], points[5])
        assert not segments_cross(points[0], points[1], points[0], points[3])  # a common end is no crossing


class TestPalm:
    def test_a_knuckle_out_of_the_plane(self):
        hand = right_hand()
        hand[9:13, 2] += 0.5
        assert "palm" in names_of(hand)


class TestSyntheticFaults:
    """The laboratory's faults are what their names say, and the rules find most of those that they are made for."""

    @pytest.mark.parametrize(
        ("name", "rule", "least"),
        [
            ("two fingers swapped", "finger_order", 0.99),
            ("finger bent back by 60 degrees", "joint_limits", 0.9),
            ("thumb on the pinky's side", "finger_order", 0.9),
        ],
    )
    def test_found(self, name, rule, least):
        hands = many_hands(100)
        assert faults_of(FAULTS[name](hands, np.random.default_rng(0)))[rule].mean() >= least

    @pytest.mark.parametrize("name", FAULTS)
    def test_the_same_fault_in_any_frame_and_unit(self, name):
        hands = many_hands(10)
        turn = rotation(1)
        made = FAULTS[name](hands, np.random.default_rng(0))
        np.testing.assert_allclose(FAULTS[name](hands @ turn * 50.0, np.random.default_rng(0)), made @ turn * 50.0)
        assert not np.allclose(made, hands)

    def test_bent_back_is_bent_to_that_angle(self):
        hands = many_hands(30)
        bent = FAULTS["finger bent back by 60 degrees"](hands, np.random.default_rng(0))
        lowest = np.rad2deg(hand_angles(bent, palm_frame(hands)).flexion[:, 1:]).min(axis=(1, 2))
        np.testing.assert_allclose(lowest, -60.0, atol=1e-6)

    def test_bone_is_longer(self):
        hands = many_hands(30)
        longer = FAULTS["bone 1.6 times as long"](hands, np.random.default_rng(0))
        lengths = [
            np.linalg.norm(np.diff(each[:, 1:].reshape(-1, 5, 4, 3), axis=2), axis=-1) for each in (hands, longer)
        ]
        ratios = (lengths[1] / lengths[0]).reshape(30, 15)
        np.testing.assert_allclose(ratios.max(axis=1), 1.6)
        np.testing.assert_allclose(np.sort(ratios, axis=1)[:, :-1], 1.0)


class TestBadInput:
    def test_of_other_hands(self):
        with pytest.raises(DataError, match="are of other hands"):
            anatomy_faults(many_hands(3), many_hands(2))

    def test_without_depth(self):
        with pytest.raises(DataError, match="landmarks has shape"):
            anatomy_faults(many_hands(3), many_hands(3)[..., :2])

    def test_not_finite(self):
        hands = many_hands(3)
        hands[0, 0, 0] = np.inf
        with pytest.raises(DataError, match="not finite"):
            anatomy_faults(hands, many_hands(3))


def turn_about_z(degrees: float) -> np.ndarray:
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
