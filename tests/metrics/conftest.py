"""Rendered hands and the real detector, made once a session. Without the models and a registry, tests are skipped."""

from pathlib import Path

import pytest

from geopos_diffusers.errors import MissingDependencyError

RENDERED_SIZE = 64


@pytest.fixture(scope="session")
def rendered_hands(tmp_path_factory) -> Path:
    """A folder of 12 rendered hands of 64 pixels: palms and backs, 0 to 5 fingers, with metadata.jsonl."""
    pytest.importorskip("anny", reason="rendering hands needs the extra geopos-diffusers[data]")
    from geopos_diffusers.data.hands import HandOptions, make_draw_hands
    from geopos_diffusers.data.image_folder import write_image_folder

    options = HandOptions(
        views=("palm", "back"), poses="canonical", max_tilt=12, max_rotation=15, backgrounds="plain", fill=(0.7, 0.88)
    )
    folder = tmp_path_factory.mktemp("rendered") / "hands"
    return write_image_folder(lambda: make_draw_hands(RENDERED_SIZE, 11, options), 12, folder, progress=False)


@pytest.fixture(scope="session")
def detector():
    pytest.importorskip("mediapipe", reason="finding hands needs the extra geopos-diffusers[eval]")
    from geopos_diffusers.metrics.hand_detection import HandDetector

    try:
        hand_detector = HandDetector()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    with hand_detector:
        yield hand_detector


@pytest.fixture(scope="session")
def mobilenet():
    from geopos_diffusers.metrics.features import load_mobilenet

    try:
        return load_mobilenet()
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.fixture
def no_registry(tmp_path, monkeypatch) -> Path:
    """An empty cache and a pip that finds nothing. Returns the cache's folder."""
    monkeypatch.setenv("GEOPOS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return tmp_path / "cache"
