"""The schema of results files, and merging them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from experiments.results import (
    by_variant,
    current_commit,
    mean_score,
    merge_results,
    read_results,
    read_standing,
    score_ratio,
    scores,
    select,
    write_results,
)

from geopos_diffusers.errors import DataError

STORED = sorted((Path(__file__).parents[2] / "docs" / "results").glob("*.json"))
HEAD = ("format_version", "experiment", "command", "date", "versions", "commit", "machine")


def run(variant, seed, value=1.0, **more):
    return {"variant": variant, "seed": seed, "cpu_seconds": 1.5, "scores": {"test": value}, **more}


def results(tmp_path, runs, name="a.json", **settings):
    return write_results(tmp_path / name, "gan", runs, {"steps": 5, **settings}, data={"name": "hands"})


def test_a_file_says_what_made_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/x/scripts/experiments/gan/run.py", "--steps", "5"])
    written = results(tmp_path, [run("GeoConv", 0), run("GeoConv", 1)])
    read = read_results(tmp_path / "a.json", "gan")
    assert read == written
    assert tuple(read)[: len(HEAD)] == HEAD
    assert read["command"] == "python -m scripts.experiments.gan.run --steps 5"
    assert read["versions"]["torch"] == torch.__version__
    assert read["versions"].keys() == {"python", "torch", "diffusers", "geopos_diffusers"}
    assert read["machine"].keys() == {"processor", "threads", "device"}
    assert read["cpu_seconds"] == 3.0
    assert len((tmp_path / "a.json").read_text().splitlines()[-4:-2]) == 2  # one line a run


@pytest.mark.parametrize("version", [1, 3, None])
def test_other_versions_are_refused_in_one_line(tmp_path, version):
    results(tmp_path, [run("GeoConv", 0)])
    text = json.dumps(read_results(tmp_path / "a.json", "gan") | {"format_version": version})
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match="must hold") as error:
        read_results(tmp_path / "a.json", "gan")
    assert "\n" not in str(error.value)


def test_a_file_is_added_to_under_its_own_settings(tmp_path):
    written = results(tmp_path, [run("GeoConv", 0)], width=8)
    assert read_standing(tmp_path / "a.json", "gan", {"steps": 5, "width": 8}) == written
    assert read_standing(tmp_path / "b.json", "gan", {"steps": 5}) is None
    with pytest.raises(DataError, match="measured with other settings"):
        read_standing(tmp_path / "a.json", "gan", {"steps": 5, "width": 9})


def test_runs_must_name_their_variant(tmp_path):
    with pytest.raises(DataError, match="1 runs name no variant"):
        results(tmp_path, [run("GeoConv", 0), run("", 1)])
    assert not (tmp_path / "a.json").exists()


def test_commit_of_a_checkout(tmp_path):
    assert current_commit(tmp_path) is None

    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True, text=True
        ).stdout

    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD").strip()
    (tmp_path / "untracked").write_text("")
    assert current_commit(tmp_path) == commit
    (tmp_path / "file").write_text("2")
    assert current_commit(tmp_path) == f"{commit}-dirty"


def test_new_seeds_are_merged(tmp_path):
    first = results(tmp_path, [run("convolution", 0), run("GeoConv", 0)]) | {"date": "2020-01-01", "commit": "a"}
    more = results(tmp_path, [run("convolution", 1), run("GeoConv", 1)]) | {"date": "2021-01-01", "commit": "b"}
    merged = merge_results(first, more)
    assert [(run["variant"], run["seed"]) for run in merged["runs"]] == [
        *(("convolution", 0), ("convolution", 1), ("GeoConv", 0), ("GeoConv", 1))
    ]
    assert (merged["date"], merged["commit"], merged["cpu_seconds"]) == ("2021-01-01", None, 6.0)
    assert merged["versions"] == first["versions"]
    assert merge_results(first, more | {"command": "python b.py"})["command"].endswith(" && python b.py")


def test_files_that_were_added_to_are_merged(tmp_path):
    """As `frames.json`: several commands, several steps of a run, and no processor time."""
    first, more = (
        write_results(
            tmp_path / "a.json",
            "gan",
            [{"variant": "frames", "seed": seed, "steps": steps} for steps in (300, 1000)],
            {},
            commands=commands,
        )
        for seed, commands in ((1, ["python a.py"]), (2, ["python a.py", "python b.py"]))
    )
    merged = merge_results(first, more)
    assert [(run["seed"], run["steps"]) for run in merged["runs"]] == [(1, 300), (1, 1000), (2, 300), (2, 1000)]
    assert merged["commands"] == ["python a.py", "python b.py"]
    assert "cpu_seconds" not in merged
    assert "cpu_seconds" not in merge_results(first | {"cpu_seconds": 5.0}, more)  # of one file alone they are no sum


def test_other_settings_or_the_same_runs_are_not_merged(tmp_path):
    first = results(tmp_path, [run("convolution", 0)])
    with pytest.raises(DataError, match="different settings cannot"):
        merge_results(first, results(tmp_path, [run("convolution", 1)], steps=6))
    with pytest.raises(DataError, match="different data, real cannot"):
        merge_results(first, first | {"data": {"name": "faces"}, "real": {}, "runs": []})
    with pytest.raises(DataError, match="both results hold convolution, seed 0"):
        merge_results(first, first)
    other_data = [run("convolution", 0, data="heads")]
    assert len(merge_results(first, results(tmp_path, other_data))["runs"]) == 2


def test_merging_files(tmp_path, capsys):
    from experiments.merge import main

    results(tmp_path, [run("convolution", 0)])
    results(tmp_path, [run("convolution", 1)], "b.json")
    main(["gan", str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    assert [run["seed"] for run in read_results(tmp_path / "a.json", "gan")["runs"]] == [0, 1]
    assert "2 runs" in capsys.readouterr().out


def test_ratio_is_over_shared_seeds_in_pairs():
    first = [run("a", seed, seed + 1.0) for seed in range(5)]
    second = [run("b", seed, 2 * (seed + 1.0)) for seed in range(4)]
    ratio = score_ratio(first, second, "test")
    assert (ratio.value, ratio.low, ratio.high, ratio.count) == pytest.approx((0.5, 0.5, 0.5, 4))
    assert mean_score(first, "test").value == 3


def test_runs_that_differ_in_more_than_the_seed_are_not_mixed():
    runs = [run(variant, 0) for variant in ("convolution", "GeoConv")]
    with pytest.raises(DataError, match="2 runs share 1 seeds"):
        scores(runs, "test")
    assert scores(select(runs, variant="GeoConv"), "test") == {0: 1.0}


def test_variants_are_followed_by_their_matched_ones():
    runs = [run(name, 0) for name in ("GeoConv, matched", "convolution", "GeoConv", "GeoConv, sum")]
    assert list(by_variant(runs, ["convolution", "CoordConv", "GeoConv"])) == [
        *("convolution", "GeoConv", "GeoConv, matched")
    ]


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_files_have_the_schema(path):
    experiment = json.loads(path.read_text(encoding="utf-8"))["experiment"]
    stored = read_results(path, experiment)
    assert {*HEAD, "settings", "runs"} <= stored.keys()
    assert all(run["variant"] for run in stored["runs"])
    assert stored["command"].startswith(("python -m scripts.experiments.", "python scripts/"))
