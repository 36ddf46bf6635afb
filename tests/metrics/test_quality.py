import numpy as np
import pytest

from geopos_diffusers.metrics.bootstrap import Interval
from geopos_diffusers.metrics.cmmd import cmmd
from geopos_diffusers.metrics.fid import frechet_distance
from geopos_diffusers.metrics.kid import kid
from geopos_diffusers.metrics.neighbourhoods import neighbourhoods
from geopos_diffusers.metrics.quality import (
    QUALITY,
    half_quality_scores,
    quality_problems,
    quality_scores,
    warnings_for,
)
from geopos_diffusers.metrics.quality_measures import FEATURE_SCORES
from geopos_diffusers.metrics.vendi import vendi_score

WIDTH = 24


def features(count: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """Normal features with unequal directions, as images have them."""
    values = np.random.default_rng(seed).normal(size=(count, WIDTH)) / np.sqrt(1 + np.arange(WIDTH))
    return (scale * values + shift + 2).astype(np.float32)


def test_values_are_those_of_the_single_measures():
    samples, reference = features(90, 0, shift=0.2), features(120, 1)
    scores = quality_scores(samples, reference, seed=3)
    assert list(scores) == list(FEATURE_SCORES)
    assert scores["kid"] == kid(samples, reference, 3)
    assert scores["cmmd"] == cmmd(samples, reference, 3)
    assert scores["fid"].value == pytest.approx(frechet_distance(samples.astype(np.float64), reference), rel=1e-5)
    near = neighbourhoods(samples, reference)
    for name in ("precision", "recall", "density", "coverage"):
        assert scores[name].value == pytest.approx(getattr(near, name), abs=0.02)
    assert scores["vendi"].value == pytest.approx(vendi_score(samples - reference.mean(0)), rel=1e-4)


def test_intervals_hold_the_value_and_narrow_with_more_images():
    few = quality_scores(features(60, 0, 0.3), features(60, 1), seed=0)
    many = quality_scores(features(960, 2, 0.3), features(960, 3), seed=0)
    for name in FEATURE_SCORES:
        assert few[name].low <= few[name].value <= few[name].high
        if name not in ("vendi", "ndb"):  # these grow with the number of images and of bins themselves
            assert many[name].high - many[name].low < few[name].high - few[name].low


def test_same_seed_same_scores():
    samples, reference = features(40, 0), features(40, 1)
    assert quality_scores(samples, reference, 5) == quality_scores(samples, reference, 5)


def test_without_intervals():
    samples, reference = features(60, 0), features(60, 1)
    full, short = (quality_scores(samples, reference, 0, intervals=choice) for choice in (True, False))
    assert short == {name: Interval(score.value, None, None) for name, score in full.items()}


@pytest.mark.parametrize("name", ["fid", "kid", "cmmd", "jsd", "precision", "coverage"])
def test_monotone_in_the_share_of_other_images(name):
    reference, good, bad = features(400, 0), features(400, 1), features(400, 2, shift=1.5)
    values = [
        quality_scores(np.concatenate([bad[:mixed], good[mixed:]]), reference, 0, intervals=False)[name].value
        for mixed in (0, 40, 100, 200, 400)
    ]
    assert values == sorted(values, reverse=QUALITY[name].better == "higher")


def test_less_variety():
    reference, narrow = features(400, 0), features(400, 1, scale=0.5)
    full, less = (quality_scores(part, reference, 0, intervals=False) for part in (features(400, 2), narrow))
    assert less["recall"].value < full["recall"].value - 0.3
    assert less["precision"].value > full["precision"].value
    assert less["fid"].value > full["fid"].value


def test_collapse_has_a_vendi_score_near_1():
    same = features(1, 1) + np.random.default_rng(0).normal(size=(50, WIDTH)) * 1e-3
    assert quality_scores(same, features(50, 0), 0)["vendi"].value == pytest.approx(1, abs=0.01)


def test_halves_of_a_reference():
    scores = half_quality_scores(features(300, 0), seed=0)
    assert scores["kid"].low < 0 < scores["kid"].high
    assert scores["precision"].value > 0.6


def test_more_images_than_a_subset_holds():
    """1,400 images make subsets of 500, whose deviation is scaled to that of all."""
    one = quality_scores(features(1400, 0, 0.3), features(1400, 1), seed=0)["fid"]
    values = [frechet_distance(features(1400, 10 + 2 * i, 0.3), features(1400, 11 + 2 * i)) for i in range(24)]
    assert (one.high - one.low) / 2 / 1.96 == pytest.approx(np.std(values, ddof=1), rel=0.5)


@pytest.fixture(scope="module")
def drawn_scores():
    """Scores of 60 pairs of sets drawn from the same two distributions."""
    draws = ((features(80, 2 * draw, 0.2), features(80, 2 * draw + 1), draw) for draw in range(60))
    return [quality_scores(*draw) for draw in draws]


@pytest.mark.parametrize("name", FEATURE_SCORES)
def test_intervals_cover_the_expectation(name, drawn_scores):
    """Of 60 draws, at least 52: 57 are expected, and fewer than 52 happen in 0.3% of runs of true 95% intervals."""
    expected = np.mean([scores[name].value for scores in drawn_scores])
    assert sum(scores[name].low <= expected <= scores[name].high for scores in drawn_scores) >= 52


class TestBadInput:
    def test_not_finite(self):
        broken = features(40, 0)
        broken[3:5, 2] = np.nan
        scores = quality_scores(broken, features(40, 1), 0)
        assert set(scores.values()) == {Interval(None, None, None)}
        assert "features of 2 of 40 of the images are not finite" in quality_problems(broken, features(40, 1))["fid"]

    @pytest.mark.parametrize(("count", "known"), [(3, 0), (5, 2), (12, 8), (20, 10)])
    def test_few_images_leave_the_scores_that_they_can_have(self, count, known):
        samples, reference = features(count, 0), features(50, 1)
        scores, problems = quality_scores(samples, reference, 0), quality_problems(samples, reference)
        assert sum(score.value is not None for score in scores.values()) == known
        assert {name for name, score in scores.items() if score.value is None} == problems.keys()
        assert all(f"{count} images and 50 of the reference; at least" in problem for problem in problems.values())

    def test_no_images_and_other_features(self):
        assert "no features of the images" in quality_problems(np.empty((0, WIDTH)), features(9, 0))["kid"]
        assert "24 and 8 values" in quality_problems(features(9, 0), np.zeros((9, 8)))["kid"]
        assert quality_scores(np.empty((0, WIDTH)), features(30, 0), 0)["fid"].value is None

    def test_features_that_would_overflow(self):
        large = features(40, 0)
        large[3, 1] = 1e30
        assert "reach 1e+30; at most 1e+09 can be scored" in quality_problems(features(40, 1), large)["fid"]
        assert quality_scores(1e7 * features(40, 0), 1e7 * features(40, 1), 0)["fid"].low is not None

    def test_constant_features(self):
        constant = np.full((30, WIDTH), 0.3, dtype=np.float32)
        scores = quality_scores(constant, constant, 0)
        assert scores["fid"].value == pytest.approx(0, abs=1e-9)
        assert (scores["precision"].value, scores["jsd"].value) == (1, 0)
        assert scores["vendi"].value is None
        assert "gives them no direction" in quality_problems(constant, constant)["vendi"]
        beside = quality_scores(constant, features(30, 0), 0)
        assert beside["vendi"].value == pytest.approx(1)
        assert beside["fid"].value > 0

    def test_sets_of_different_sizes(self):
        scores = quality_scores(features(25, 0), features(300, 1), 0)
        assert all(score.low <= score.value <= score.high for score in scores.values())


class TestWarnings:
    def test_none_with_enough_images(self):
        assert warnings_for(10_000, 20_000, 1280) == ()

    def test_what_is_too_few(self):
        assert warnings_for(2000, 50_000, 1280) == (
            "FID, precision, recall, density, coverage: 2,000 images, fewer than the usual 10,000; compare only with "
            "scores of as many.",
        )
        few = warnings_for(5000, 300, 1280)
        assert any(sentence.startswith("KID, CMMD") and "300 images" in sentence for sentence in few)
        assert few[-1] == "FID is far too high, by its bias: 300 images, and 1,280 features of each."
        assert warnings_for(300, 300, names=["ms_ssim"]) == ()
        assert "MS-SSIM of pairs: 50 images" in warnings_for(50, 300, names=["ms_ssim"])[0]

    def test_every_measure_says_what_it_is(self):
        for measure in QUALITY.values():
            assert measure.better in ("lower", "higher", "near the reference's")
            assert "arXiv" in measure.source
            assert measure.usual >= measure.minimum
