"""Rendered hands with defects, and the packaged model, on which every test of repairs is tried."""

import json
from pathlib import Path

import pytest
from commands import spoiled_hands
from PIL import Image

from geopos_diffusers.metrics.hand_judge import HandJudge, load_hand_judge
from geopos_diffusers.pipelines.loading import load_pipeline


@pytest.fixture(scope="session")
def spoiled(tmp_path_factory) -> Path:
    """A folder of three rendered hands of 96 pixels, none of them well formed."""
    return spoiled_hands(tmp_path_factory.mktemp("spoiled"), 3)


@pytest.fixture(scope="session")
def hand(spoiled) -> Image.Image:
    return Image.open(spoiled / "000000.png")


@pytest.fixture(scope="session")
def box(spoiled) -> tuple[float, ...]:
    """Where the hand is, in shares."""
    row = json.loads((spoiled / "metadata.jsonl").read_text().splitlines()[0])
    return tuple(min(max(value / 96, 0.0), 1.0) for value in row["box"])


@pytest.fixture(scope="session")
def packaged():
    return load_pipeline("hands64")


@pytest.fixture(scope="session")
def judge() -> HandJudge:
    return load_hand_judge()
