import json
from pathlib import Path

import pytest

from geopos_diffusers.errors import DataError
from geopos_diffusers.training.early_stopping import BestWeights


def offer(best: BestWeights, values: list[float | None], better: str = "lower", comparable: str = "x") -> list[bool]:
    """Offers the values as those of steps 0, 1, ...; the weights are the step's number."""

    def save(step: int):
        return lambda folder: (folder / "weights").write_text(str(step))

    return [best.offer(step, value, better, save(step), comparable) for step, value in enumerate(values)]


def kept(folder: Path) -> str:
    return (folder / "weights").read_text()


@pytest.mark.parametrize(
    ("better", "values", "expected", "step"),
    [
        ("lower", [3.0, 2.0, 2.0, 2.5, 1.0], [True, True, False, False, True], 4),
        ("higher", [3.0, 2.0, 3.0, 2.5], [True, False, False, False], 0),
        ("lower", [None, float("nan"), 5.0, float("-inf"), 6.0], [False, False, True, False, False], 2),
    ],
)
def test_the_first_of_the_best_stays(tmp_path, better, values, expected, step):
    best = BestWeights(tmp_path / "best", "loss")
    assert offer(best, values, better) == expected
    assert kept(best.folder) == str(step)
    assert json.loads((best.folder / "best.json").read_text()) == best.best
    assert (best.best["step"], best.best["measure"], best.best["value"]) == (step, "loss", values[step])


def test_it_stops_after_so_many_without_a_better_one(tmp_path):
    best = BestWeights(tmp_path / "best", "loss", patience=2)
    stops = []
    for value in (3.0, 4.0, 2.0, 2.0, 2.0):
        offer(best, [value])
        stops.append(best.should_stop())
    assert stops == [False, False, False, False, True]
    assert not BestWeights(tmp_path / "other", "loss").should_stop()


def test_counters_continue_it(tmp_path):
    first = BestWeights(tmp_path / "best", "loss", patience=3)
    offer(first, [2.0, 3.0])
    other = BestWeights(tmp_path / "best", "loss", patience=3)
    other.counters.update(json.loads(json.dumps(first.counters)))
    assert offer(other, [2.5, 2.5]) == [False, False]
    assert other.should_stop()


@pytest.mark.parametrize("change", ["another measurement", "no folder"])
def test_what_is_not_comparable_begins_anew(tmp_path, change):
    best = BestWeights(tmp_path / "best", "loss", patience=1)
    offer(best, [1.0, 2.0])
    if change == "no folder":
        (best.folder / "best.json").unlink()
    assert offer(best, [5.0], comparable="y" if change == "another measurement" else "x") == [True]
    assert (best.best["value"], best.should_stop()) == (5.0, False)


def test_a_failed_save_keeps_the_one_before(tmp_path):
    best = BestWeights(tmp_path / "best", "loss")
    offer(best, [2.0])

    def full_disk(folder):
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        best.offer(1, 1.0, "lower", full_disk, "x")
    assert (kept(best.folder), best.best["value"]) == ("0", 2.0)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_file(tmp_path, text):
    best = BestWeights(tmp_path / "best", "loss")
    best.check()
    offer(best, [1.0])
    best.check()
    (best.folder / "best.json").write_text(text)
    with pytest.raises(DataError, match=r"best\.json is damaged: .*; remove .*best"):
        best.check()
