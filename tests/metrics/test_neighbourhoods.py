import numpy as np
import pytest

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.neighbourhoods import neighbourhoods


def line(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


def modes(which: list[int], count: int, seed: int = 0) -> np.ndarray:
    centers = 50 * np.eye(8)[np.array(which)[np.arange(count) % len(which)]]
    return centers + np.random.default_rng(seed).normal(size=(count, 8))


def test_by_hand():
    # Real images at 0 to 5 and 100 to 105; the third neighbours of 0..5 are 3, 2, 2, 2, 2, 3 away, the fifth ones
    # 5, 4, 3, 3, 4, 5. Samples at 2.0 to 2.5 and one at 50, whose third neighbour is about 47.6 away.
    real = line(*range(6), *range(100, 106))
    samples = line(2.0, 2.1, 2.2, 2.3, 2.4, 2.5, 50)
    result = neighbourhoods(samples, real)
    assert result.precision == pytest.approx(6 / 7)
    # 50's ball reaches 2.4 and 97.6, so of the real images 3, 4 and 5; the ball of 2.0 reaches 0.3 on, with 2 in it.
    assert result.recall == pytest.approx(4 / 12)
    assert result.coverage == pytest.approx(6 / 12)
    assert result.density == pytest.approx(6 * 6 / 5 / 7)


def test_one_distribution():
    generator = np.random.default_rng(0)
    result = neighbourhoods(generator.normal(size=(500, 4)), generator.normal(size=(500, 4)))
    assert min(result.precision, result.recall, result.coverage) > 0.85
    assert result.density == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("kept", [1, 2, 4, 8])
def test_recall_and_coverage_fall_with_lost_modes(kept):
    real = modes(list(range(8)), 400)
    result = neighbourhoods(modes(list(range(kept)), 400, seed=1), real)
    assert result.coverage == pytest.approx(kept / 8, abs=0.05)
    assert kept / 8 * 0.6 < result.recall <= kept / 8
    assert result.precision > 0.7


def test_order_of_the_arguments():
    narrow, wide = modes([0], 200), modes([0, 1], 200, seed=1)
    assert neighbourhoods(narrow, wide).recall < 0.55 < 0.8 < neighbourhoods(wide, narrow).recall


def test_bad_input():
    with pytest.raises(DataError, match="5 samples and 9 real images; at least 6"):
        neighbourhoods(np.zeros((5, 2)), np.zeros((9, 2)))
    with pytest.raises(DataError, match="the same extractor"):
        neighbourhoods(np.zeros((9, 2)), np.zeros((9, 3)))


def by_loops(samples: np.ndarray, real: np.ndarray) -> tuple[float, float, float, float]:
    def radius(index: int, points: np.ndarray, neighbours: int) -> float:
        distances = [np.linalg.norm(points[index] - other) for place, other in enumerate(points) if place != index]
        return sorted(distances)[neighbours - 1]

    def inside(point: np.ndarray, center: np.ndarray, reach: float) -> bool:
        return bool(np.linalg.norm(point - center) <= reach)

    third = [radius(index, real, 3) for index in range(len(real))]
    fifth = [radius(index, real, 5) for index in range(len(real))]
    of_samples = [radius(index, samples, 3) for index in range(len(samples))]
    return (
        np.mean([any(inside(s, r, reach) for r, reach in zip(real, third, strict=True)) for s in samples]),
        np.mean([any(inside(r, s, reach) for s, reach in zip(samples, of_samples, strict=True)) for r in real]),
        np.mean([sum(inside(s, r, reach) for r, reach in zip(real, fifth, strict=True)) / 5 for s in samples]),
        np.mean([any(inside(s, r, reach) for s in samples) for r, reach in zip(real, fifth, strict=True)]),
    )


@pytest.mark.parametrize("precision", [np.float64, np.float32])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_agrees_with_loops_whatever_the_chunks(chunk, precision, monkeypatch):
    monkeypatch.setattr("geopos_diffusers.metrics.neighbourhoods.CHUNK", chunk)
    generator = np.random.default_rng(0)
    samples, real = generator.normal(size=(23, 3)) + 0.5, generator.normal(size=(30, 3))
    result = neighbourhoods(samples, real, precision)
    assert (result.precision, result.recall, result.density, result.coverage) == pytest.approx(by_loops(samples, real))
