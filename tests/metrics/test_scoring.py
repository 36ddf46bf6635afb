import json
import math

import numpy as np
import pytest
from PIL import Image

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.scoring import compare_scores, score_images


@pytest.fixture
def folder(tmp_path):
    for name, gray in (("a", 0), ("b", 100), ("c", 200)):
        Image.new("RGB", (8, 8), (gray, gray, gray)).save(tmp_path / f"{name}.png")
    return tmp_path


def red(image: Image.Image) -> float:
    return float(np.asarray(image)[..., 0].mean())


def test_mean_and_interval(folder):
    result = score_images(folder, red)
    assert result.scores == {"a.png": 0, "b.png": 100, "c.png": 200}
    assert result.mean.value == 100
    assert result.mean.low < 100 < result.mean.high


def test_images_without_a_score_are_left_out(folder):
    result = score_images(folder, lambda image: red(image) or None)
    assert math.isnan(result.scores["a.png"])
    assert result.mean.value == 150


def test_the_scorer_sees_rgb_and_unreadable_files_are_named(folder):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(folder / "d.png")
    (folder / "e.png").write_bytes(b"no image")
    result = score_images(folder, red)
    assert result.scores["d.png"] == 255
    assert "not a readable image" in result.skipped["e.png"]


def test_metadata_says_which(folder):
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "b.png"}) + "\n")
    assert list(score_images(folder, red).scores) == ["b.png"]


@pytest.mark.parametrize("score", ["good", float("nan"), float("inf"), [1, 2]])
def test_what_is_no_score(folder, score):
    with pytest.raises(DataError, match=r"the scorer gave .* for a\.png"):
        score_images(folder, lambda image: score)


def test_nothing_readable(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="none of its 1 images can be read"):
        score_images(tmp_path, red)


def test_comparison(folder):
    ours = score_images(folder, red)
    difference = compare_scores(ours, score_images(folder, lambda image: red(image) / 2))
    assert difference.value == 50
    assert difference.low < 50 < difference.high
