import numpy as np
import pytest

from geopos_diffusers.metrics.detection_rate import match_reference, matched_rate, rate, rate_ratio
from geopos_diffusers.metrics.hand_attributes import HandAttributes


def hand(fingers=None, view=None, handedness=None, tone=None) -> HandAttributes:
    return HandAttributes(fingers, view, handedness, tone)


class TestWeights:
    def test_by_hand(self):
        # Three fists and one open hand were made; the reference has one fist and two open hands.
        evaluated = [hand(0), hand(0), hand(0), hand(5)]
        match = match_reference(evaluated, [hand(0), hand(5), hand(5)])
        assert match.weights.tolist() == [3.0, 0.5, 0.5]
        assert match.attributes == ("fingers",)
        assert (match.unmatched, match.unknown) == ((), 0)

    def test_joint_distribution_is_that_of_the_evaluated(self):
        generator = np.random.default_rng(0)

        def draw(count, first):
            return [
                hand(int(generator.integers(first, 3)), str(generator.choice(["palm", "back"])), "left")
                for _ in range(count)
            ]

        evaluated, reference = draw(60, 1), draw(300, 0)
        weights = match_reference(evaluated, reference).weights
        assert weights.sum() == pytest.approx(60)
        for cell in {(row.fingers, row.view) for row in reference}:
            wanted = sum((row.fingers, row.view) == cell for row in evaluated)
            given = sum(
                weight for weight, row in zip(weights, reference, strict=True) if (row.fingers, row.view) == cell
            )
            assert given == pytest.approx(wanted)

    def test_only_what_is_known_must_agree(self):
        reference = [hand(2, "palm"), hand(2, "back"), hand(3, "palm"), hand(3, "back")]
        assert match_reference([hand(2)], reference).weights.tolist() == [0.5, 0.5, 0, 0]
        assert match_reference([hand(None, "back")], reference).weights.tolist() == [0, 0.5, 0, 0.5]

    def test_without_a_match(self):
        match = match_reference([hand(4), hand(2)], [hand(2), hand(3)])
        assert match.unmatched == (0,)
        assert match.weights.tolist() == [1.0, 0.0]

    def test_nothing_known(self):
        match = match_reference([hand(), hand()], [hand(2), hand(3)])
        assert match.weights.tolist() == [1.0, 1.0]
        assert (match.attributes, match.unknown) == ((), 2)

    def test_what_the_reference_does_not_know_is_not_matched(self):
        match = match_reference([hand(2, "palm")], [hand(2), hand(3)])
        assert match.attributes == ("fingers",)
        assert match.weights.tolist() == [1.0, 0.0]

    def test_only_the_names_asked_for(self):
        match = match_reference([hand(2, "palm")], [hand(2, "back"), hand(3, "palm")], ("view",))
        assert match.weights.tolist() == [0.0, 1.0]


class TestRates:
    def test_matched_rate_by_hand(self):
        # Fists are found in 1 of 2, open hands in 2 of 2; with three fists to one open hand: (3 * 0.5 + 1) / 4.
        weights = match_reference([hand(0)] * 3 + [hand(5)], [hand(0)] * 2 + [hand(5)] * 2).weights
        interval = matched_rate(np.array([1.0, 0.0, 1.0, 1.0]), weights, seed=0)
        assert interval.value == pytest.approx(0.625)
        assert interval.low < 0.625 < interval.high

    def test_unmatched_reference_misleads(self):
        # A generator as good as the reference in everything, but making fists only.
        generator = np.random.default_rng(0)
        found_fists = generator.random(200) < 0.5
        reference = [hand(0)] * 200 + [hand(5)] * 200
        reference_found = np.concatenate([generator.random(200) < 0.5, np.ones(200)]).astype(float)
        weights = match_reference([hand(0)] * 200, reference).weights
        ratio = rate_ratio(found_fists.astype(float), reference_found, weights, seed=0)
        assert ratio.low < 1 < ratio.high
        assert found_fists.mean() / reference_found.mean() < 0.75

    def test_ratio_to_nothing(self):
        ratio = rate_ratio(np.ones(5), np.zeros(5), np.ones(5), seed=0)
        assert (ratio.value, ratio.low, ratio.high) == (None, None, None)

    def test_nothing_matched(self):
        assert matched_rate(np.ones(3), np.zeros(3), seed=0).value is None

    def test_rate(self):
        assert rate(np.array([1.0, 0.0, 1.0, 1.0]), seed=0).value == 0.75
