"""Folders of photographs, and the page of a results file."""

import io
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from experiments.results import write_results
from experiments.unconditional.data import export_faces, export_hands
from experiments.unconditional.section import page
from PIL import Image


def write_parquet(path, subjects):
    rows = []
    for index, subject in enumerate(subjects):
        buffer = io.BytesIO()
        Image.new("RGB", (10, 10), (index, 0, 0)).save(buffer, format="PNG")
        rows.append({"image": {"bytes": buffer.getvalue(), "path": None}, "label": index % 2, "subject": subject})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def reds(folder):
    return [int(np.asarray(Image.open(path))[0, 0, 0]) for path in sorted(folder.glob("*.png"))]


def test_no_subject_is_in_two_parts(tmp_path):
    write_parquet(tmp_path / "train.parquet", [0, 1, 2, 8, 9, 9, 0])
    write_parquet(tmp_path / "test.parquet", [3, 4])
    folders = export_hands(tmp_path, tmp_path / "work", 8)
    assert {name: reds(folder) for name, folder in folders.items()} == {
        "train": [1, 2, 4, 5],
        "validation": [0, 3, 6],
        "test": [0, 1],
    }
    assert Image.open(folders["train"] / "000000.png").size == (8, 8)
    rows = [json.loads(line) for line in (folders["train"] / "metadata.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == [1, 0, 0, 1]


def test_faces_are_split_evenly(tmp_path):
    write_parquet(tmp_path / "train.parquet", [0] * 6)
    write_parquet(tmp_path / "test.parquet", [0])
    folders = export_faces(tmp_path, tmp_path / "work", 8, validation=2)
    assert (reds(folders["validation"]), reds(folders["train"])) == ([0, 3], [1, 2, 4, 5])


SETTINGS = {"max_train_steps": 80, "batch_size": 16, "num_samples": 4, "sample_steps": 2, "seeds": [0, 1, 2, 3, 4]}


@pytest.mark.parametrize(("subject", "arms"), [("hands", ("geometry", "bias")), ("faces", ("GeoConv", "convolution"))])
def test_the_page_says_which_difference_is_shown(tmp_path, subject, arms):
    arm = {"options": "", "parameters": 1234, "sweep": {"0.1": 0.5}, "best_rate": 0.1, "bracketed": False}
    runs = [
        {"variant": name, "seed": seed, "scores": {"loss": base + 0.001 * seed, "kid": 0.2, "frechet": 3.0}}
        for name, base in zip(arms, (0.5, 0.7), strict=True)
        for seed in range(5)
    ]
    settings = {**SETTINGS, "subject": subject, "sweep_seed": 100, "base_steps": 800, "base_images": 3000}
    images = {"train": 1075, "validation": 161, "test": 407}
    results = write_results(
        tmp_path / "r.json", "unconditional", runs, settings, images=images, variants=dict.fromkeys(arms, arm)
    )
    text = page(results, tmp_path / "r.json")
    first = text.splitlines()[2]
    assert first.startswith(f"- Denoising loss of {arms[0]}:")
    assert "lower than that of" in first
    assert f"| {arms[0]} | 1,234 | 0.1 (not bracketed) | 0.5020 [" in text
    assert ("r.png" in text) == (subject == "hands")
    assert "{" not in text
