"""The experiment on decoders with a tiny pipeline and drawn photographs, from its command line to its page."""

import io
import json
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from tiny_models import tiny_stable_diffusion

from geopos_diffusers.errors import ConfigError, MissingDependencyError
from geopos_diffusers.finetuning.vae_scores import HeldOutImages


def write_photographs(file: Path, people: range) -> None:
    """Two pictures of each person, coloured by the person."""
    rows = []
    for person in people:
        for shade in (60, 120):
            buffer = io.BytesIO()
            Image.new("RGB", (70, 66), (shade, 20 * person % 256, 90)).save(buffer, format="PNG")
            rows.append({"image": {"bytes": buffer.getvalue()}, "subject": person})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


@pytest.fixture
def photographs(tmp_path) -> Path:
    (tmp_path / "photographs").mkdir()
    write_photographs(tmp_path / "photographs" / "train.parquet", range(6))
    write_photographs(tmp_path / "photographs" / "test.parquet", range(10, 13))
    return tmp_path / "photographs"


def colours(folder: Path) -> set[int]:
    return {Image.open(path).getpixel((0, 0))[1] for path in folder.iterdir()}


def test_people_are_in_one_part_alone(photographs, tmp_path):
    run = import_module("experiments.vae_decoder.run")
    run.export(photographs, tmp_path / "work")
    parts = {name: colours(tmp_path / "work" / name) for name in ("train", "validation", "test")}
    assert parts == {"train": {20, 40, 60, 80}, "validation": {0, 100}, "test": {200, 220, 240}}


def test_intervals_of_differences_pair_images_and_average_seeds():
    run = import_module("experiments.vae_decoder.run")
    import torch

    test = HeldOutImages(torch.zeros(4, 3, 32, 32), 16, None, kid=False)
    names = [f"{measure}_{region}" for measure in ("psnr", "l1", "lpips") for region in ("image", "ring", "centre")]
    base = np.array([1.0, 5.0, 9.0, 13.0])
    test.untouched = dict.fromkeys(names, base)
    arms = {"geometry": (0.5, 1.5), "bias": (0.25, 0.25)}
    runs = {
        name: [run.Finished([], 1, 0.0, dict.fromkeys(names, (base + gain).tolist()), None) for gain in gains]
        for name, gains in arms.items()
    }
    found = run.image_intervals(runs, test)
    assert set(found) == {"geometry - untouched", "bias - untouched", "geometry - bias"}
    assert found["geometry - untouched"]["psnr_image"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["geometry - bias"]["l1_ring"]["value"] == pytest.approx(0.75)
    assert found["geometry - bias"]["l1_ring_minus_centre"]["value"] == 0


@pytest.mark.slow
def test_from_photographs_to_the_page(photographs, tmp_path, monkeypatch):
    pytest.importorskip("peft")
    run, section = (import_module(f"experiments.vae_decoder.{name}") for name in ("run", "section"))
    pipe = tiny_stable_diffusion()
    pipe.save_pretrained(tmp_path / "model")
    results = tmp_path / "results" / "vae_decoder.json"
    words = ["--photographs", photographs, "--output", tmp_path / "work", "--results", results, "--steps", 2]
    words += ["--batch-size", 2, "--num-seeds", 2, "--model", tmp_path / "model", "--arms", "geometry", "LoRA"]

    def start(program: str, *words: object) -> None:
        monkeypatch.setattr(sys, "argv", [program, *map(str, words)])
        import_module(f"experiments.vae_decoder.{program}").main()

    try:
        start("run", *words)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    found = json.loads(results.read_text())
    assert [(one["variant"], one["seed"]) for one in found["runs"]] == [
        ("untouched", 0), ("geometry", 0), ("geometry", 1), ("LoRA", 0), ("LoRA", 1),
    ]  # fmt: skip
    assert results.with_suffix(".png").is_file()
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("scores.json")}
    start("run", *words)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("scores.json")} == trained
    start("section", "--results", results.parent)
    page = results.with_suffix(".md").read_text()
    assert "| untouched |" in page
    assert "| geometry - LoRA |" in page
    with pytest.raises(ConfigError, match="holds a run with other options"):
        start("run", *words, "--batch-size", 3)
    assert run.ARMS["LoRA"].options.endswith("conv2")
    assert section.REFERENCE in run.ARMS
