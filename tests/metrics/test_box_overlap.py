"""Overlap of hands with the boxes that were asked for."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from geopos_diffusers.errors import DataError
from geopos_diffusers.images.metadata import read_rows
from geopos_diffusers.metrics.box_overlap import box_overlap, hands_in_boxes
from geopos_diffusers.metrics.evaluation_cache import EvaluationCache
from geopos_diffusers.metrics.folder_scoring import score_folders
from geopos_diffusers.metrics.image_folder import boxes_of_row, list_images
from geopos_diffusers.metrics.image_scoring import ScoringSettings
from geopos_diffusers.metrics.measure_values import ReferenceModel
from geopos_diffusers.metrics.measures import MEASURES

# The middle two thirds of 60 x 30 pixels.
HAND = np.array([[10.0, 5.0], [50.0, 25.0], [30.0, 15.0]])


@pytest.mark.parametrize(
    ("box", "expected"),
    [((0, 0, 1, 1), 0.25), ((0, 0, 0.5, 0.5), 1), ((0.5, 0.5, 1, 1), 0), ((0.25, 0, 0.75, 0.5), 1 / 3)],
)
def test_overlap(box, expected):
    one = np.array([[0, 0, 0.5, 0.5]])
    assert box_overlap(one, np.array([box])) == pytest.approx(expected)
    assert box_overlap(np.array([box]), one) == pytest.approx(expected)
    assert box_overlap(one[0], np.array([box] * 3)) == pytest.approx([expected] * 3)


class TestHands:
    def test_in_shares_and_in_pixels(self):
        asked = np.array([[1 / 6, 0, 5 / 6, 1]])  # as wide as the hand, and half as high again
        for boxes in (asked, asked * [60, 30, 60, 30]):
            assert hands_in_boxes(boxes, [HAND], (60, 30), 0.0) == pytest.approx(2 / 3, abs=1e-3)

    def test_the_nearest_hand_of_each_box(self):
        left, right = [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]
        hands = [np.array([[0, 0], [30, 30]]), np.array([[30, 0], [60, 30.0]])]
        both = np.array([left, right])
        assert hands_in_boxes(both, hands, (60, 30), 0.0) == pytest.approx(1)
        assert hands_in_boxes(both, hands[1:], (60, 30), 0.0) == pytest.approx(0.5)
        assert hands_in_boxes(both, [], (60, 30), 0.0) is None

    def test_one_outside_the_image_overlaps_nothing(self):
        assert hands_in_boxes(np.array([[0, 0, 1, 1.0]]), [HAND + 100], (60, 30), 0.0) == 0


class TestRows:
    def test_one_box_several_and_none(self):
        assert boxes_of_row({"box": [0, 0.5, 1, 1]}).tolist() == [[0, 0.5, 1, 1]]
        assert boxes_of_row({"boxes": [[0, 0, 3, 4], [1, 1, 2, 2]]}).tolist() == [[0, 0, 3, 4], [1, 1, 2, 2]]
        assert boxes_of_row({"text": "a hand", "box": None}) is None

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"box": [0, 0, 1]}, "four finite numbers"),
            ({"box": "0 0 1 1"}, "four finite numbers"),
            ({"box": [0, 0, 1, math.nan]}, "four finite numbers"),
            ({"box": [0, 0, 1, None]}, "four finite numbers"),
            ({"boxes": []}, "four finite numbers"),
            ({"boxes": [[0, 0, 1, 1], [0, 1]]}, "four finite numbers"),
            ({"boxes": {"left": [0, 0, 1, 1]}}, "four finite numbers"),
            ({"box": [0.5, 0, 0.5, 1]}, "below 0, empty or reversed"),
            ({"box": [0, 0.9, 1, 0.1]}, "below 0, empty or reversed"),
            ({"box": [-0.1, 0, 1, 1]}, "below 0, empty or reversed"),
        ],
    )
    def test_bad_ones(self, row, message, tmp_path):
        with pytest.raises(DataError, match=message):
            boxes_of_row(row)
        (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png"} | row))
        with pytest.raises(DataError, match=rf"metadata.jsonl, line 1: .*{message}"):
            list_images(tmp_path)


@pytest.fixture(scope="module")
def scored(rendered_hands):
    settings = ScoringSettings(extractors=(), presence=False)
    with EvaluationCache(None) as cache:
        folders = [("rendered", list_images(rendered_hands))]
        return score_folders(folders, settings, cache=cache, num_workers=1, progress=False)[0]


class TestRenderedHands:
    """Their boxes, which are in pixels, and the same boxes moved away."""

    def values(self, scored, boxes, name):
        """boxes: a function of those of an image."""
        entries = [replace(row, source=replace(row.source, boxes=boxes(row.source.boxes))) for row in scored.entries]
        changed = replace(scored, entries=tuple(entries))
        return MEASURES[name].values(changed, ReferenceModel(changed, None, None))

    @pytest.mark.parametrize("name", ["box_overlap", "judge_box_overlap"])
    def test_are_in_their_boxes(self, scored, name):
        as_drawn = self.values(scored, lambda boxes: boxes, name)
        in_shares = self.values(scored, lambda boxes: boxes / 64, name)
        elsewhere = self.values(scored, lambda boxes: boxes * 0.3, name)
        assert np.isfinite(as_drawn).sum() >= 10
        assert np.nanmin(as_drawn) > 0.6
        np.testing.assert_allclose(as_drawn, in_shares)
        assert np.nanmax(elsewhere) < 0.3

    @pytest.mark.parametrize("name", ["box_overlap", "judge_box_overlap"])
    def test_without_boxes_there_is_no_value(self, scored, name):
        assert np.isnan(self.values(scored, lambda _: None, name)).all()

    def test_the_second_judge_sees_one_hand(self, scored):
        twice = self.values(scored, lambda boxes: np.repeat(boxes, 2, 0), "judge_box_overlap")
        assert np.isnan(twice).all()
        found = self.values(scored, lambda boxes: np.repeat(boxes, 2, 0), "box_overlap")
        np.testing.assert_allclose(found, self.values(scored, lambda boxes: boxes, "box_overlap"))

    def test_rows_have_the_boxes(self, scored, rendered_hands):
        rows = [row for _, row in read_rows(rendered_hands / "metadata.jsonl")]
        assert [entry.source.boxes.tolist() for entry in scored.entries] == [[row["box"]] for row in rows]
