import numpy as np
import pytest
from experiments.hand_controls.controls import (
    SHARES,
    dose_curve,
    gain,
    is_monotone,
    null_coverage,
    tolerance,
    worsening,
)
from experiments.hand_controls.data import CHANGES, changed_copy, resize
from experiments.results import read_results
from PIL import Image

from geopos_diffusers.data.hands import HandOptions, make_draw_hands
from geopos_diffusers.data.image_folder import write_image_folder
from geopos_diffusers.images.metadata import read_rows
from geopos_diffusers.metrics.evaluation_cache import EvaluationCache
from geopos_diffusers.metrics.folder_scoring import score_folders
from geopos_diffusers.metrics.image_folder import list_images
from geopos_diffusers.metrics.image_scoring import ScoringSettings
from geopos_diffusers.metrics.measure_values import ReferenceModel
from geopos_diffusers.metrics.measures import MEASURES

GENERATOR = np.random.default_rng(0)
GOOD = GENERATOR.normal(1.0, 0.5, 300)
BAD = GENERATOR.normal(0.0, 0.5, 300)


class TestControls:
    def test_a_measure_that_sees_defects(self):
        curve = dose_curve(GOOD, BAD, 200, 200, seed=0)
        assert len(curve) == len(SHARES)
        np.testing.assert_allclose(curve, 1 - np.array(SHARES), atol=0.06)
        assert is_monotone(curve, 1)
        assert not is_monotone(curve, -1)
        assert worsening(GOOD, BAD, 1, seed=0).low > 0.9
        assert worsening(GOOD, BAD, -1, seed=0).high < -0.9

    def test_a_measure_that_sees_nothing(self):
        other = np.random.default_rng(1).normal(1.0, 0.5, 300)
        interval = worsening(GOOD, other, 1, seed=0)
        assert interval.low < 0 < interval.high

    @pytest.mark.parametrize("kind", ["number", "share"])
    def test_halves_of_one_set(self, kind):
        values = GOOD.copy() if kind == "number" else (GOOD > 0.8).astype(float)
        values[::17] = np.nan
        assert null_coverage(values, kind, 300, seed=0) > 0.92
        assert null_coverage(np.ones(50), kind, 10, seed=0) is None

    def test_a_gain_is_paired_and_has_a_sign(self):
        after = GOOD + 0.1
        assert gain(GOOD, after, 1, seed=0).value == pytest.approx(0.1)
        assert gain(GOOD, after, -1, seed=0).value == pytest.approx(-0.1)
        narrow = gain(GOOD, after, 1, seed=0)
        assert narrow.high - narrow.low < 1e-9

    def test_hiding_the_bad_ones_is_a_gain(self):
        both = np.concatenate([GOOD, BAD])
        hidden = np.where(both < 0.5, np.nan, both)
        assert gain(both, hidden, 1, seed=0).low > 0.2

    def test_tolerance(self):
        assert tolerance(GOOD, "share") == 0.03
        assert tolerance(GOOD, "number") == pytest.approx(0.15 * GOOD.std())


def test_measures_say_which_controls_they_fail():
    runs = [run for run in read_results("docs/results/hand_controls.json", "hand_controls")["runs"] if "passes" in run]
    assert {run["variant"]: {name for name, passed in run["passes"].items() if passed is False} for run in runs} == {
        name: set(measure.fails) for name, measure in MEASURES.items()
    }


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Proper and defective hands of 96 pixels, and both after each change."""
    work = tmp_path_factory.mktemp("sets")
    folders = {}
    for index, (name, options) in enumerate((("proper", HandOptions()), ("defective", HandOptions(defects=1.0)))):
        folders[name] = write_image_folder(
            lambda index=index, options=options: make_draw_hands(96, 70 + index, options),
            64,
            work / name,
            progress=False,
        )
        for change in ("blur 1%", "contrast 0.5", "JPEG 50"):
            folders[f"{name}, {change}"] = changed_copy(folders[name], work / f"{name} {change}", CHANGES[change])
    return folders


def test_changed_copies_keep_their_metadata(sets, tmp_path):
    rows = [row for _, row in read_rows(sets["proper"] / "metadata.jsonl")]
    copy = changed_copy(sets["proper"], tmp_path / "small", lambda image: resize(48, image), 2, 5)
    changed = [row for _, row in read_rows(copy / "metadata.jsonl")]
    assert [row["file_name"] for row in changed] == [row["file_name"] for row in rows[2:5]]
    assert Image.open(copy / changed[0]["file_name"]).size == (48, 48)
    np.testing.assert_allclose(changed[0]["keypoints"], np.array(rows[2]["keypoints"]) / 2, atol=1e-3)
    assert {key: changed[0][key] for key in ("text", "fingers")} == {key: rows[2][key] for key in ("text", "fingers")}


def test_the_second_judge_passes_at_a_small_size(sets, detector):
    """The whole controls are docs/results/hand_controls.md; this holds the measures that a claim rests on."""
    settings = ScoringSettings(extractors=(), presence=False)
    with EvaluationCache(None) as cache:
        folders = [(name, list_images(path)) for name, path in sets.items()]
        scored = dict(
            zip(sets, score_folders(folders, settings, cache=cache, num_workers=1, progress=False), strict=True)
        )
    model = ReferenceModel(scored["proper"], None, None)
    for name in ("judge_score", "judge_well_formed", "good"):
        measure = MEASURES[name]
        values = {key: measure.values(folder, model) for key, folder in scored.items()}
        curve = dose_curve(values["proper"], values["defective"], 64, 400, seed=0)
        assert is_monotone(curve, 1), name
        assert worsening(values["proper"], values["defective"], 1, seed=0).low > 0, name
        before = np.concatenate([values["proper"], values["defective"]])
        for change in ("blur 1%", "contrast 0.5", "JPEG 50"):
            after = np.concatenate([values[f"proper, {change}"], values[f"defective, {change}"]])
            allowed = tolerance(before, measure.kind)
            assert gain(before, after, 1, seed=0).low <= allowed, (name, change)
