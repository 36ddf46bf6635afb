import numpy as np
import pytest

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.vendi import vendi_score


@pytest.mark.parametrize("kept", [1, 2, 5, 12])
def test_number_of_equally_frequent_kinds(kept):
    # Images of one kind are equal, those of two kinds at right angles.
    assert vendi_score(np.eye(16)[np.arange(60) % kept]) == pytest.approx(kept)


def test_by_hand():
    # Two images with cosine 0.6: eigenvalues of K / 2 are 0.8 and 0.2.
    expected = np.exp(-(0.8 * np.log(0.8) + 0.2 * np.log(0.2)))
    assert vendi_score(np.array([[1.0, 0], [0.6, 0.8]])) == pytest.approx(expected)
    assert vendi_score(np.array([[5.0, 0], [0.06, 0.08]])) == pytest.approx(expected)


def test_both_ways_to_the_eigenvalues_agree():
    features = np.random.default_rng(0).normal(size=(20, 30))
    directions = features / np.linalg.norm(features, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(directions.T @ directions / 20)
    values = values[values > 1e-12]
    assert vendi_score(features) == pytest.approx(np.exp(-(values * np.log(values)).sum()))
    assert vendi_score(features[:, :4]) <= 4


def test_features_of_zero_length_are_like_nothing():
    assert vendi_score(np.array([[0.0, 0], [0, 0], [1, 0]])) == pytest.approx(3)


def test_no_images():
    with pytest.raises(DataError, match="1 or more"):
        vendi_score(np.zeros((0, 3)))
