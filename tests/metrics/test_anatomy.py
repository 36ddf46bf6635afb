import numpy as np
import pytest
from hand_cases import many_hands, right_hand, rotation

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.anatomy import COMPONENTS, LENGTHS, anatomy_vector
from geopos_diffusers.metrics.hand_angles import hand_angles
from geopos_diffusers.metrics.hand_skeleton import palm_frame, palm_thickness

MIRROR = np.array([-1.0, 1.0, 1.0])


def component(vector: np.ndarray, name: str) -> float:
    return float(vector[..., COMPONENTS.index(name)])


class TestInvariance:
    """Exact but for rounding: the same vector for the same hand."""

    hands = many_hands(20)

    @pytest.mark.parametrize("seed", range(3))
    def test_rotation(self, seed):
        np.testing.assert_allclose(anatomy_vector(self.hands @ rotation(seed)), anatomy_vector(self.hands), atol=1e-9)

    def test_translation(self):
        moved = self.hands + np.array([3.0, -2.0, 5.0])
        np.testing.assert_allclose(anatomy_vector(moved), anatomy_vector(self.hands), atol=1e-9)

    @pytest.mark.parametrize("scale", [0.01, 250.0])
    def test_scale(self, scale):
        np.testing.assert_allclose(anatomy_vector(self.hands * scale), anatomy_vector(self.hands), atol=1e-9)

    @pytest.mark.parametrize("mirror", [MIRROR, -MIRROR, -np.ones(3)])
    def test_mirror(self, mirror):
        np.testing.assert_allclose(anatomy_vector(self.hands * mirror), anatomy_vector(self.hands), atol=1e-9)

    def test_any_leading_shape(self):
        grid = self.hands.reshape(4, 5, 21, 3)
        assert anatomy_vector(grid).shape == (4, 5, len(COMPONENTS))
        np.testing.assert_array_equal(anatomy_vector(grid).reshape(20, -1), anatomy_vector(self.hands))
        np.testing.assert_allclose(anatomy_vector(self.hands[3]), anatomy_vector(self.hands)[3], atol=1e-12)


class TestWhatItMeasures:
    def test_flexion_is_that_of_the_pose(self):
        flexion = np.array([[20, 30, 10], [5, 40, 20], [60, 70, 30], [80, 15, 25]], dtype=float)
        hand = right_hand(flexion, spread=0.0)
        bones_before = hand[[5, 9, 13, 17]] - hand[0]
        rise = np.rad2deg(np.arcsin(bones_before[:, 2] / np.linalg.norm(bones_before, axis=-1)))
        found = np.rad2deg(hand_angles(hand, palm_frame(hand)).flexion[1:])
        np.testing.assert_allclose(found[:, 1:], flexion[:, 1:], atol=0.5)
        np.testing.assert_allclose(found[:, 0], flexion[:, 0] + rise, atol=3.0)

    def test_a_finger_bent_back_is_negative_among_bent_ones(self):
        flexion = np.full((4, 3), 15.0)
        flexion[1, 1] = -60.0
        vector = anatomy_vector(right_hand(flexion))
        assert np.rad2deg(component(vector, "flexion of middle PIP")) == pytest.approx(-60.0, abs=1.0)
        assert component(vector, "flexion of ring PIP") > 0

    def test_lengths_are_ratios_to_the_palm(self):
        hand = right_hand()
        longer = hand.copy()
        longer[8] += hand[8] - hand[7]
        change = anatomy_vector(longer) - anatomy_vector(hand)
        assert component(change, "length of index distal") == pytest.approx(np.log(2.0))
        assert np.abs(np.delete(change[:LENGTHS], COMPONENTS.index("length of index distal"))).max() < 1e-12

    def test_spread_fingers_and_thumb(self):
        closed, spread = anatomy_vector(right_hand(spread=0.2)), anatomy_vector(right_hand(spread=2.0))
        for pair in ("index-middle", "middle-ring", "ring-pinky"):
            assert component(spread, f"spread {pair}") > component(closed, f"spread {pair}") + np.deg2rad(10)
        assert component(closed, "radial abduction of the thumb") > np.deg2rad(20)
        assert component(closed, "palmar abduction of the thumb") > 0

    def test_palm_thickness(self):
        hand = right_hand()
        assert palm_thickness(hand) < 0.02
        hand[9, 2] += 0.5
        assert palm_thickness(hand) > 0.2

    def test_finite_for_a_bone_without_length(self):
        hand = right_hand()
        hand[8] = hand[7]
        assert np.isfinite(anatomy_vector(hand)).all()


class TestBadInput:
    @pytest.mark.parametrize("shape", [(21, 2), (20, 3), (21,), (3,)])
    def test_shape(self, shape):
        with pytest.raises(DataError, match=r"must be \[\.\.\., 21, 3\]"):
            anatomy_vector(np.zeros(shape))

    def test_not_finite(self):
        hand = right_hand()
        hand[4, 1] = np.nan
        with pytest.raises(DataError, match="1 values that are not finite"):
            anatomy_vector(hand)

    def test_no_palm(self):
        with pytest.raises(DataError, match="all in one place"):
            anatomy_vector(np.ones((21, 3)))

    def test_no_hands(self):
        assert anatomy_vector(np.zeros((0, 21, 3))).shape == (0, len(COMPONENTS))
