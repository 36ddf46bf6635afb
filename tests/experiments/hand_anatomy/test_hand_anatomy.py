import numpy as np
import pytest
from hand_cases import many_hands

pytest.importorskip("tqdm")
from experiments.hand_anatomy.landmarks import NO_DEFECT, FoundHands, read_hands_file
from experiments.hand_anatomy.run import (
    COMPONENTS,
    area_under_curve,
    matched_curve,
    measure_pair,
    measure_sizes,
    tolerances,
)

PIXELS = np.array([90.0, -90.0, 90.0])


def found(count: int, seed: int) -> FoundHands:
    hands = many_hands(count, seed)
    return FoundHands(hands, hands * PIXELS, np.array([NO_DEFECT] * count), np.arange(count) % 6, count + 2)


class TestCurve:
    def test_by_hand(self):
        assert area_under_curve(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 1.0
        assert area_under_curve(np.array([1.0, 3.0]), np.array([2.0, 4.0])) == 0.75
        assert area_under_curve(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 0.5

    def test_matched_by_fingers(self):
        # Fists (0) have large values, faulty or not; an open hand's fault adds to a small one.
        proper, fingers = np.array([9.0, 9.0, 9.0, 1.0]), np.array([0, 0, 0, 5])
        faulty, faulty_fingers = np.array([2.0, 3.0]), np.array([5, 5])
        assert area_under_curve(proper, faulty) == 0.25
        assert matched_curve(proper, fingers, faulty, faulty_fingers) == 1.0


class TestMeasure:
    def test_pair(self):
        runs = measure_pair("test", found(120, 0), found(60, 1), found(30, 2), seed=0)
        rules = {run["hands"]: run["rules"] for run in runs if "rules" in run}
        assert rules["proper"]["any"] == 0
        assert rules["two fingers swapped"]["finger_order"] > 0.95
        curves = {(run["landmarks"], run["compared"]): run for run in runs if "compared" in run}
        assert curves.keys() >= {(kind, name) for kind in ("image", "world") for name in COMPONENTS}
        assert curves["image", "both"]["two fingers swapped"]["auc"] > 0.95
        assert curves["image", "both"]["defect: all"]["auc"] == pytest.approx(0.5, abs=0.15)
        # A length does not tell of a bend, nor an angle of a longer bone.
        assert curves["image", "lengths"]["finger bent back by 60 degrees"]["auc"] == pytest.approx(0.5, abs=0.01)
        assert curves["image", "angles"]["bone 1.6 times as long"]["auc"] == pytest.approx(0.5, abs=0.01)

    def test_sizes(self):
        runs = measure_sizes("test", found(130, 0), found(100, 1), seed=0)
        assert [run["reference hands"] for run in runs] == [60, 120]
        assert all(run["low"] <= run["mean"] <= run["high"] for run in runs)

    def test_tolerances(self):
        names = ("photographs, training", "rendered, training", "rendered in all poses, training")
        for row in tolerances({name: found(50, seed) for seed, name in enumerate(names)}).values():
            assert all(row[name] < row["allowed"] for name in names)


def test_hands_are_kept(tmp_path):
    hands = found(5, 0)
    np.savez(tmp_path / "hands.npz", **vars(hands))
    again = read_hands_file(tmp_path / "hands.npz")
    assert again.images == 7
    np.testing.assert_array_equal(again.image, hands.image)
    assert again.select(again.fingers == 3).defects.tolist() == [NO_DEFECT]
