import numpy as np
import pytest
from hand_cases import many_hands

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.anatomy import HandDistribution, anatomy_vector
from geopos_diffusers.metrics.hand_distribution import FOLDS, MINIMUM_HANDS, ledoit_wolf


def correlated(count: int, width: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, width)) @ generator.normal(size=(width, width))


class TestShrinkage:
    @pytest.mark.parametrize(("count", "width"), [(10, 4), (40, 12), (8, 20)])
    def test_formula_of_the_paper(self, count, width):
        centred = correlated(count, width)
        centred -= centred.mean(axis=0)
        sample = centred.T @ centred / count
        mean = np.trace(sample) / width
        distance = ((sample - mean * np.eye(width)) ** 2).sum() / width
        scatter = sum(((np.outer(row, row) - sample) ** 2).sum() / width for row in centred) / count**2
        weight = min(scatter, distance) / distance
        shrunk, found = ledoit_wolf(centred)
        assert found == pytest.approx(weight)
        np.testing.assert_allclose(shrunk, weight * mean * np.eye(width) + (1 - weight) * sample)

    def test_agrees_with_scikit_learn(self):
        covariance = pytest.importorskip("sklearn.covariance")
        centred = correlated(50, 9)
        centred -= centred.mean(axis=0)
        theirs, weight = covariance.ledoit_wolf(centred, assume_centered=True)
        shrunk, found = ledoit_wolf(centred)
        assert found == pytest.approx(weight)
        np.testing.assert_allclose(shrunk, theirs)

    def test_less_for_more_hands(self):
        weights = [ledoit_wolf(correlated(count, 10))[1] for count in (12, 100, 5000)]
        assert weights == sorted(weights, reverse=True)
        assert weights[-1] < 0.01

    def test_no_variance(self):
        shrunk, weight = ledoit_wolf(np.zeros((5, 3)))
        assert weight == 1.0
        assert not shrunk.any()


class TestDistance:
    def test_that_of_a_known_gaussian(self):
        vectors = np.random.default_rng(0).normal([5.0, -2.0], [1.0, 10.0], size=(20000, 2))
        distribution = HandDistribution.fit(vectors)
        distances = distribution.distances(np.array([[5.0, -2.0], [7.0, -2.0], [5.0, 28.0]]))
        np.testing.assert_allclose(distances, [0.0, 2.0, 3.0], atol=0.05)
        # 95% of a plane Gaussian lie within the root of chi-squared's quantile, 5.991 for two degrees of freedom.
        assert distribution.limit == pytest.approx(np.sqrt(5.991), abs=0.05)

    def test_unit_of_a_component_does_not_matter(self):
        vectors, units = correlated(200, 5), np.array([1.0, 100.0, 0.01, 1.0, 3.0])
        first, second = HandDistribution.fit(vectors), HandDistribution.fit(vectors * units)
        np.testing.assert_allclose(first.distances(vectors), second.distances(vectors * units))

    @pytest.mark.parametrize("count", [MINIMUM_HANDS, 400])
    def test_five_percent_of_new_hands_lie_beyond(self, count):
        new = anatomy_vector(many_hands(2000, seed=99))
        shares = [
            HandDistribution.fit(anatomy_vector(many_hands(count, seed=seed))).share_beyond(new) for seed in range(5)
        ]
        assert 0.02 < np.mean(shares) < 0.08

    def test_own_hands_would_seem_too_near(self):
        vectors = anatomy_vector(many_hands(MINIMUM_HANDS))
        distribution = HandDistribution.fit(vectors)
        assert distribution.distances(vectors).mean() < distribution.held_out.mean()
        assert (distribution.held_out > distribution.limit).sum() == pytest.approx(0.05 * MINIMUM_HANDS, abs=1)

    def test_same_seed_same_limit(self):
        vectors = anatomy_vector(many_hands(80))
        assert HandDistribution.fit(vectors, seed=3).limit == HandDistribution.fit(vectors, seed=3).limit
        assert HandDistribution.fit(vectors, seed=3).limit != HandDistribution.fit(vectors, seed=4).limit

    def test_monotone_in_the_share_of_long_fingers(self):
        reference = HandDistribution.fit(anatomy_vector(many_hands(300)))
        hands = many_hands(200, seed=1)
        faulty = hands.copy()
        faulty[:, 8] += 0.6 * (hands[:, 8] - hands[:, 7])
        shares = [
            reference.share_beyond(anatomy_vector(np.concatenate([faulty[:bad], hands[bad:]])))
            for bad in (0, 20, 50, 100, 200)
        ]
        assert shares == sorted(shares)
        assert shares[-1] > shares[0] + 0.5

    def test_component_that_does_not_vary(self):
        vectors = np.concatenate([correlated(100, 3), np.ones((100, 1))], axis=1)
        assert np.isfinite(HandDistribution.fit(vectors).distances(vectors)).all()

    def test_no_hands(self):
        distribution = HandDistribution.fit(correlated(100, 3))
        assert len(distribution.distances(np.zeros((0, 3)))) == 0
        assert np.isnan(distribution.share_beyond(np.zeros((0, 3))))


class TestBadInput:
    def test_too_few(self):
        with pytest.raises(DataError, match=f"has {MINIMUM_HANDS - 1} hands; .* at least {MINIMUM_HANDS}"):
            HandDistribution.fit(correlated(MINIMUM_HANDS - 1, 4))
        assert MINIMUM_HANDS >= 2 * FOLDS

    def test_other_components(self):
        with pytest.raises(DataError, match="4 components, the reference 5"):
            HandDistribution.fit(correlated(100, 5)).distances(correlated(10, 4))

    def test_shape(self):
        with pytest.raises(DataError, match="hands, components"):
            HandDistribution.fit(np.zeros(100))

    def test_not_finite(self):
        vectors = correlated(100, 4)
        vectors[[3, 7], 1] = np.inf
        with pytest.raises(DataError, match="2 of the hands' vectors"):
            HandDistribution.fit(vectors)
