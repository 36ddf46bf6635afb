"""Rendered hands, the real detector and an evaluation, made once a session; skipped without models and a registry."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from report_cases import NASTY_FILE, NASTY_PROMPT

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


@pytest.fixture(scope="session")
def models(rendered_hands, tmp_path_factory) -> list[Path]:
    """Folders of what two models may draw from the same prompts and seeds: base without one hand in four, and lora.

    One prompt and one file name are markup; base also has a broken file, and lora an image that base lacks.
    """
    rows = [json.loads(line) for line in (rendered_hands / "metadata.jsonl").read_text().splitlines()][:10]
    folders = []
    for name in ("base", "lora"):
        folder = tmp_path_factory.mktemp("models") / name
        folder.mkdir()
        lines = []
        for index, row in enumerate(rows[: 9 if name == "base" else 10]):
            file, text = f"{name}{index}.png", f"a hand, {row['fingers']} fingers raised, number {index}"
            if index == 3:
                file, text = NASTY_FILE, NASTY_PROMPT
            if name == "base" and index % 4 == 0:
                Image.new("RGB", (RENDERED_SIZE, RENDERED_SIZE), (30, 90, 160)).save(folder / file)
            else:
                shutil.copy(rendered_hands / row["file_name"], folder / file)
            lines.append({"file_name": file, "text": text, "seed": 2**60 + index})
        if name == "base":
            (folder / "broken.png").write_bytes(b"\x89PNG broken")
            lines.append({"file_name": "broken.png", "text": "a fist"})
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        folders.append(folder)
    return folders


@pytest.fixture(scope="session")
def evaluation(models, rendered_hands, detector):
    """The models beside the rendered hands, by both judges and with the scores of sets."""
    from geopos_diffusers.metrics.evaluation import evaluate_hands

    try:
        return evaluate_hands(models, rendered_hands, progress=False)
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.fixture
def document(evaluation) -> dict:
    """The content of evaluation.json, a new one for each test."""
    from geopos_diffusers.metrics.report_document import evaluation_to_dict

    return evaluation_to_dict(evaluation)


@pytest.fixture
def no_registry(tmp_path, monkeypatch) -> Path:
    """An empty cache and a pip that finds nothing. Returns the cache's folder."""
    monkeypatch.setenv("GEOPOS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return tmp_path / "cache"
