import pytest

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.folder_lock import LOCK_NAME, locked_folder
from geopos_diffusers.training.resuming import discard_run, resume_point


@pytest.fixture
def run_folder(tmp_path):
    """A folder with two checkpoints and a log."""
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}" / "training_state").mkdir(parents=True)
    (tmp_path / "losses.jsonl").write_text("{}")
    return tmp_path


def test_a_folder_that_holds_a_run_is_continued_unless_it_is_to_be_overwritten(run_folder):
    assert resume_point(run_folder) == resume_point(run_folder, "latest") == run_folder / "checkpoint-10"
    assert resume_point(run_folder, "checkpoint-2") == run_folder / "checkpoint-2"
    assert resume_point(run_folder, overwrite=True) is None
    with pytest.raises(ConfigError, match="give one of them"):
        resume_point(run_folder, "latest", overwrite=True)


def test_a_folder_without_a_run(tmp_path):
    assert resume_point(tmp_path) is resume_point(tmp_path / "none") is None
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        resume_point(tmp_path, "latest")


def test_a_run_is_discarded_whole(run_folder):
    discard_run(run_folder)
    assert not run_folder.exists()
    discard_run(run_folder)


def test_other_folders_and_runs_at_work_are_not_discarded(tmp_path, run_folder):
    other = tmp_path / "vae"
    other.mkdir()
    (other / "config.json").write_text("{}")
    discard_run(other)
    assert (other / "config.json").is_file()
    with locked_folder(run_folder), pytest.raises(ConfigError, match="in use by another run"):
        discard_run(run_folder)
    assert not (run_folder / LOCK_NAME).exists()
