import json
from pathlib import Path

import numpy as np
import pytest
from experiments.hand_judge.evaluate import RESULTS, area_interval, cohens_kappa
from experiments.hand_judge.figures import areas, draw, shares
from experiments.hand_judge.package import figures, page
from PIL import Image

from geopos_diffusers.data.hand_defects import DEFECTS
from geopos_diffusers.metrics.hand_judge import FOLDER


@pytest.fixture(scope="module")
def results() -> dict:
    with open(RESULTS, encoding="utf-8") as file:
        return json.load(file)


def test_the_card_says_what_was_measured(results):
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert figures(results) in card
    assert f"{results['training']['images']:,} hands" in card
    assert Path(RESULTS).with_suffix(".md").read_text(encoding="utf-8") == page(card)


def test_every_kind_is_measured(results):
    rendered = results["rendered"]
    assert set(rendered["well_formed_auc_by_kind"]) == set(DEFECTS)
    assert set(rendered["called_well_formed_by_kind"]) == {"none", *DEFECTS}
    assert all(0 <= score["low"] <= score["value"] <= score["high"] <= 1 for score in areas(results).values())
    assert all(0 <= score["low"] <= score["value"] <= score["high"] <= 1 for score in shares(results).values())


def test_the_labelled_images_are_those_of_the_repository(results):
    with open("scripts/experiments/hand_judge/packaged_model_labels.json", encoding="utf-8") as file:
        rows = json.load(file)["rows"]
    assert results["labelled"]["images"] == len(rows) >= 200
    told = [row["well_formed"] for row in rows if row["well_formed"] is not None]
    assert results["labelled"]["labelled_well_formed"]["value"] == pytest.approx(np.mean(told), abs=1e-4)


def test_the_figure_is_drawn(results, tmp_path):
    pytest.importorskip("matplotlib")
    draw(results, tmp_path / "figure.png")
    assert Image.open(tmp_path / "figure.png").width > 800


def test_kappa_of_known_tables():
    yes, no = np.array([True, True, False, False]), np.array([False, False, True, True])
    assert cohens_kappa(yes, yes) == 1
    assert cohens_kappa(yes, no) == -1
    assert cohens_kappa(yes, np.array([True, False, True, False])) == 0
    assert cohens_kappa(np.ones(3, bool), np.ones(3, bool)) == 1


def test_area_of_separate_scores_is_one():
    found = area_interval(np.array([0.8, 0.9]), np.array([0.1, 0.2, 0.3]))
    assert (found["value"], found["low"], found["high"], found["n"]) == (1, 1, 1, [2, 3])
