"""Spoiled photographs, and the page of a results file."""

import json

import numpy as np
import pytest
from experiments.repair.section import page
from experiments.repair.spoiling import KINDS, spoil
from hand_cases import right_hand
from PIL import Image

POINTS = right_hand()[:, :2] * (60, -60) + (100, 170)  # an upright open hand in 200 pixels


@pytest.mark.parametrize("kind", KINDS)
def test_a_finger_is_spoiled_and_the_rest_stays(kind):
    """Noise, so that every pixel that is touched differs."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    spoiled = spoil(image, POINTS, kind, np.random.default_rng(1))
    changed = (np.asarray(spoiled) != np.asarray(image)).any(2)
    assert 0.005 < changed.mean() < 0.1
    wrist = tuple(np.rint(POINTS[0]).astype(int))
    assert not changed[wrist[1] - 20 : wrist[1] + 20].any()
    again = spoil(image, POINTS, kind, np.random.default_rng(1))
    assert (np.asarray(again) == np.asarray(spoiled)).all()


def look(score: float, fingers: int) -> dict:
    return {"present": 1.0, "well_formed": score, "judge_fingers": fingers, "found": True, "detector_fingers": fingers}


def test_the_page_tells_before_from_after():
    rows = [
        {
            "name": str(index),
            "kind": KINDS[index % 2],
            "fingers": 3,
            "found_by": "detector",
            "replaced": index > 0,
            "before": look(0.1, 2),
            "after": look(0.6, 3),
            "variants": [0.2, 0.4],
            "count_before": False,
            "counts": [True, False],
            "square_before": 0.1,
            "square_after": 0.6,
            "distance_before": 20.0,
            "distance_after": 30.0,
        }
        for index in range(4)
    ]
    options = {"candidates": 2, "strength": 0.9, "margin": 0.25, "steps": 25, "guidance_scale": 2.5}
    settings = {"model": "hands64", "images": 4, "seed": 0, "options": options}
    runs = [{"variant": "photographs", "hands": rows}]
    results = {"date": "2026-01-01", "cpu_seconds": 8.0, "settings": settings, "runs": runs}
    text = page(json.loads(json.dumps(results)), "repair_second")
    assert "3 were replaced, and 1 kept" in text
    assert "found 4 by the detector" in text
    assert "2.0 s" in text
    assert "| well-formedness (2nd judge, which chose) | 0.10 [0.10, 0.10] | 0.60 [0.60, 0.60] | +0.50" in text
    assert "| well-formedness of all variants, unchosen | 0.10 [0.10, 0.10] | 0.30" in text
    assert "| fingers right (2nd judge, which chose) | 0.00 [0.00, 0.00] | 1.00 [1.00, 1.00] |" in text
    assert "| found and fingers right of all variants, unchosen (detector) | 0.00 [0.00, 0.00] | 0.50 [0.50" in text
    assert "20.0 [20.0, 20.0] | 30.0 [30.0, 30.0] | +10.0" in text
    assert "| erased | 2 | 1 | 0.10 | 0.60 |" in text
