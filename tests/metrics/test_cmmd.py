import math

import numpy as np
import pytest

from geopos_diffusers.metrics.cmmd import FACTOR, cmmd, gaussian_kernel, unit_length


def directions(count: int, seed: int, shift: float = 0.0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(count, 16))
    values[:, 0] += shift
    return values


def by_loops(first: np.ndarray, second: np.ndarray) -> float:
    def kernel(left: np.ndarray, right: np.ndarray) -> float:
        left, right = left / np.linalg.norm(left), right / np.linalg.norm(right)
        return math.exp(-float(((left - right) ** 2).sum()) / 200)

    def within(part: np.ndarray) -> float:
        pairs = [kernel(a, b) for i, a in enumerate(part) for j, b in enumerate(part) if i != j]
        return sum(pairs) / len(pairs)

    between = [kernel(a, b) for a in first for b in second]
    return 1000 * (within(first) + within(second) - 2 * sum(between) / len(between))


def test_agrees_with_loops():
    first, second = directions(7, 0), directions(5, 1, shift=2)
    assert cmmd(first, second, seed=0).value == pytest.approx(by_loops(first, second), rel=1e-9)


def test_authors_estimate_differs_by_the_diagonals():
    """The published code keeps every embedding's likeness to itself (1): see the module's docstring."""
    first, second = unit_length(directions(200, 0)), unit_length(directions(150, 1, shift=1))
    kernels = [gaussian_kernel(first, first), gaussian_kernel(second, second), gaussian_kernel(first, second)]
    authors = FACTOR * (kernels[0].mean() + kernels[1].mean() - 2 * kernels[2].mean())
    extra = FACTOR * sum(
        (1 - (kernel.sum() - len(kernel)) / (len(kernel) * (len(kernel) - 1))) / len(kernel) for kernel in kernels[:2]
    )
    assert cmmd(first, second, seed=0).value == pytest.approx(authors - extra, rel=1e-6)


def test_scale_of_embeddings_does_not_matter():
    first, second = directions(30, 0), directions(30, 1, shift=1)
    assert cmmd(1000 * first, second, seed=0).value == pytest.approx(cmmd(first, second, seed=0).value)


def test_grows_with_the_shift_and_holds_zero_without():
    reference = directions(200, 9)
    results = [cmmd(directions(200, 0, shift), reference, seed=0) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert [result.value for result in results] == sorted(result.value for result in results)
    assert results[0].low < 0 < results[0].high
    assert results[2].low > 0


def test_zero_features_stay_zero():
    assert unit_length(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist() == [[0, 0], [0.6, 0.8]]
