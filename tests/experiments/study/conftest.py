"""Results of the study and their pages, which several test files look at."""

import pytest
from experiments.study.page import write_pages
from experiments.study.task_results import read_tasks
from PIL import Image
from study_cases import LOSSES, SEEDS, write_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of two tasks, one with three seeds and two arms, and the pages of them."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "study").mkdir()
    write_task(folder, "poses", LOSSES)
    few = {name: LOSSES[name] for name in ("bias", "geometry")}
    write_task(folder, "handedness", few, SEEDS[:3], "handedness_right")
    Image.new("RGB", (40, 20), "teal").save(folder / "study" / "poses.png")
    write_pages(folder)
    return folder


@pytest.fixture(scope="module")
def tasks(folder):
    return {task.name: task for task in read_tasks(folder)}
