"""The page of the study, from results files with known effects."""

import json
import re

import numpy as np
import pytest
from experiments.page import Picture, Table
from experiments.results import read_results, save_results
from experiments.statistics import difference_estimate
from experiments.study.comparisons import primary_comparisons
from experiments.study.markdown_reading import read_markdown
from experiments.study.measures import in_order, measure_of
from experiments.study.page import write_pages
from experiments.study.task_results import read_tasks
from experiments.study.tasks import TASKS
from PIL import Image
from study_cases import LOSSES, values, write_task

from geopos_diffusers.errors import DataError


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "study.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def stored(request):
    return request.config.rootpath / "docs" / "results"


def chapter(text, title):
    return re.search(rf"^## {title}.*?\n\n(.*?)(?=^## |\Z)", text, re.S | re.M)[1]


def rows(text, first):
    """The cells of the table whose first heading starts so, by the first cell of each row."""
    (found,) = [
        block for block in read_markdown(text) if isinstance(block, Table) and block.header[0].startswith(first)
    ]
    return {row[0]: dict(zip(found.header, row, strict=True)) for row in found.rows}


class TestMarkdown:
    def test_the_answer_comes_first(self, text):
        first = text.splitlines()[2]
        assert first == (
            "**By the primary score of each task, geometry helps beside some controls with poses (better in 1 of 4 "
            "comparisons, worse in 1); has too few seeds to tell with handedness (n = 3); was not run yet with "
            "photographs, sizes, enlarged, circular, place and decoding.**"
        )

    def test_a_sentence_for_each_pair(self, text):
        estimate = difference_estimate(values("geometry"), values("bias"))
        part = chapter(text, "poses")
        assert f"Loss ratio of **geometry**: lower than that of bias; difference {estimate.value:+.3f} [" in part
        assert "Loss ratio of **geometry**: not shown to differ from that of LoRA r=2;" in part
        assert "Loss ratio of **LoRA r=4 + geometry**: higher than that of LoRA r=4 + bias;" in part
        assert "n = 5. Geometry is better: **yes**." in part
        few = chapter(text, "handedness")
        assert "not compared with that of bias (suggestive, n = 3); difference -0.039" in few
        assert "d_z" not in few
        assert "**geometry** and LoRA r=2: not run yet." in few

    def test_table_of_arms(self, text):
        table = rows(chapter(text, "poses").split("\n\nImages drawn")[0].split("| arm | loss ratio, least")[0], "arm")
        assert list(table) == ["base", *LOSSES]
        mean = values("geometry").mean()
        assert table["geometry"]["loss ratio"].startswith(f"{mean:.3f} [")
        wanted = {
            "parameters": "3,561",
            "bytes": "15,000",
            "best rate": "0.3 (not bracketed)",
            "seconds a step": "0.30",
        }
        assert {name: table["geometry"][name] for name in wanted} == wanted
        assert table["bias"]["best rate"] == "0.3"
        assert table["base"]["loss ratio"] == "1.000"
        assert table["geometry"]["seeds"] == "5"

    def test_scores_of_a_size_have_a_table_of_their_own(self, text):
        part = chapter(text, "poses").split("Images drawn at 64x128 pixels (height x width):")[1].split("\n\n| diff")[0]
        table = rows(part, "arm")
        assert list(table["geometry"]) == ["arm", "one hand"]
        assert list(table) == list(LOSSES)

    def test_sweeps(self, text):
        table = rows(chapter(text, "poses")[chapter(text, "poses").index("| arm | validation loss") :], "arm")
        assert table["bias"]["validation loss, by rate"] == "0.1: 0.7000, 0.3: 0.6100, 1: diverged"

    def test_what_is_missing_is_named(self, text):
        assert "Not run yet: LoRA r=2; LoRA r=4; LoRA r=4 + bias;" in chapter(text, "handedness")
        assert "Not run yet: taps;" not in chapter(text, "handedness")
        assert "Not run yet: geometry, shift 0.25;" in chapter(text, "poses")
        assert "Not run yet: sizes.json is not there." in chapter(text, "sizes")
        assert "Not run yet." in chapter(text, "Why")

    def test_failed_runs_are_named(self, text, tmp_path):
        """Of five seeds one ends above the base: the others' mean is 0.5 and their own effects'."""
        assert "Failed" not in text
        file = write_task(tmp_path, "poses", {"bias": 0.6, "whole UNet": 0.5})
        results = json.loads(file.read_text())
        (run,) = (one for one in results["runs"] if (one["variant"], one["seed"]) == ("whole UNet", 14))
        run["scores"]["loss"] = 1.234
        save_results(file, results)
        write_pages(tmp_path)
        told = chapter((tmp_path / "study.md").read_text(encoding="utf-8"), "poses")
        assert "Failed, with a loss above the base's: whole UNet, seed 14 (1.234)." in told
        others = np.mean(values("whole UNet", 4))
        assert f"Loss ratio of the other seeds: whole UNet {others:.3f} (4 seeds)" in told

    def test_pictures(self, text, folder):
        pictures = [block for block in read_markdown(chapter(text, "poses")) if isinstance(block, Picture)]
        assert [one.file for one in pictures] == ["study/poses.png", "study/poses-bands.png"]
        drawn = np.asarray(Image.open(folder / "study" / "poses-bands.png").convert("RGB"))
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 8  # curves of several colours

    def test_advice(self, text):
        part = chapter(text, "For practitioners")
        assert part.startswith("For poses it depends on what else you would train")
        table = rows(part, "task")
        assert table["poses"]["rate, geometry"] == "0.3 (not bracketed)"
        assert table["poses"]["steps"] == "300"
        assert table["poses"]["step, as a ratio to bias"] == "1.00"
        assert "poses: loss ratio of LoRA r=4 + geometry is lower than that of geometry; -0.020 [" in part
        assert "poses: loss ratio of LoRA r=4 + geometry is higher than that of LoRA r=4" not in part

    def test_commands(self, text):
        table = rows(chapter(text, "Commands"), "results")
        assert list(table) == ["poses", "handedness"]
        assert table["poses"]["seeds"] == "10, 11, 12, 13, 14 (sweeps: 200)"
        assert table["handedness"]["seeds"] == "10, 11, 12 (sweeps: 200)"
        assert table["handedness"]["CPU time"] == f"trainings {2 * (90 + 91 + 92) / 60:.1f} min"


class TestOtherExperiments:
    def test_stored_results_of_boxes_and_decoding(self, tmp_path, stored):
        for name in ("frames.json", "vae_decoder.json"):
            (tmp_path / name).write_bytes((stored / name).read_bytes())
        found = {task.name: task for task in read_tasks(tmp_path)}
        place, decoding = found["place"], found["decoding"]
        assert place.steps == read_results(stored / "frames.json", "frames")["image_differences"]["steps"]
        assert {run.get("steps") for run in place.runs} == {None, place.steps}
        assert "frames, whole" in place.measured
        assert decoding.base == decoding.measured[0] == "untouched"
        assert [one.estimate.count for one in primary_comparisons(decoding)] == [5, 5]
        write_pages(tmp_path)
        assert "L1 error of **geometry**: " in (tmp_path / "study.md").read_text(encoding="utf-8")

    def test_without_any_results(self, tmp_path):
        write_pages(tmp_path)
        assert (tmp_path / "study.md").read_text(encoding="utf-8").count("is not there.") == len(TASKS) + 2
        assert "was not run yet with poses, photographs" in (tmp_path / "study.html").read_text(encoding="utf-8")


class TestMeasures:
    def test_order_and_size(self):
        names = {"kid", "64x128 found", "64x64 kid", "loss", "64x64 found"}
        assert in_order(names) == ["loss", "kid", "64x64 found", "64x64 kid", "64x128 found"]
        assert measure_of("64x128 found").label == "hand found, 64x128"
        assert (measure_of("96x96 kid").better, measure_of("one_hand").better) == ("lower", "higher")

    def test_unknown_score(self):
        with pytest.raises(DataError, match="'sharpness'"):
            in_order({"loss", "sharpness"})


def test_markdown_is_read():
    found = read_markdown(
        "### Energy\n\n- one\n- two\n  lines\n\n| a | b |\n| --- | --- |\n| x \\| y | 2 |\n\n![p](q.png)"
    )
    assert [getattr(block, "text", None) for block in found] == ["**Energy**", "- one", "- two lines", None, None]
    assert found[3] == Table(["a", "b"], [["x | y", "2"]])
    assert found[4] == Picture("q.png", "p")
