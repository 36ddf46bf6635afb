"""Hand scores while training, with the packaged detector and judge, beside rendered hands."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_models import tiny_stable_diffusion

from geopos_diffusers import load_geoconv_weights, optional_packages
from geopos_diffusers.errors import ConfigError, DataError, GeoPosError, MissingDependencyError
from geopos_diffusers.metrics.hand_detection import hand_landmarker_task

PROMPTS = ("a photo of the palm of a right hand, five fingers raised", "a photo of a left hand, two fingers raised")
# The tiny model draws no hands, so shares stay at 0; the judge's mean probability follows every pixel.
MEASURE = "judge_score"


@pytest.fixture(scope="module")
def hands(tmp_path_factory) -> Path:
    """A folder of six rendered hands."""
    pytest.importorskip("anny", reason="rendering hands needs the extra geopos-diffusers[data]")
    from geopos_diffusers.data.hands import HandOptions, make_draw_hands
    from geopos_diffusers.data.image_folder import write_image_folder

    options = HandOptions(views=("palm",), poses="canonical", backgrounds="plain", fill=(0.7, 0.88))
    folder = tmp_path_factory.mktemp("rendered") / "hands"
    return write_image_folder(lambda: make_draw_hands(64, 11, options), 6, folder, progress=False)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory) -> Iterator[Path]:
    """A cache of these tests' own, with the detector's model in it."""
    pytest.importorskip("mediapipe", reason="finding hands needs the extra geopos-diffusers[eval]")
    try:
        task = hand_landmarker_task()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("cache")
    (folder / task.name).symlink_to(task)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("GEOPOS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    file.write_text("\n".join((*PROMPTS, "")), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def options(hands, prompts) -> dict:
    return {
        "evaluate_every": 2,
        "evaluation_prompts": prompts,
        "evaluation_reference": hands,
        "evaluation_measure": MEASURE,
        "evaluation_images": 3,
        "validation_inference_steps": 2,
        "train": "geoconv",
        "learning_rate": 0.1,
        "use_ema": True,
        "caption_dropout": 0.5,
        "random_flip": True,
        "max_train_steps": 5,
        "checkpointing_steps": 1,
    }


@pytest.fixture(scope="module")
def whole(finetune_into, options, tmp_path_factory) -> Path:
    """The folder of a run that was never interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    finetune_into(folder, report_to="tensorboard", **options)
    return folder


@pytest.fixture
def copied(whole, tmp_path) -> Path:
    """The same, to be changed; `finetune("copied")` goes on with it."""
    return shutil.copytree(whole, tmp_path / "copied")


def without_evaluation(options: dict) -> dict:
    return {name: value for name, value in options.items() if not name.startswith("evaluat")}


def read_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "evaluation" / "scores.jsonl").read_text().splitlines()]


def without_seconds(rows: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def read_best(folder: Path) -> dict:
    return json.loads((folder / "best" / "best.json").read_text())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "geoconv_weights.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class TestARun:
    def test_what_is_written(self, whole):
        rows = read_rows(whole)
        assert [row["step"] for row in rows] == [0, 2, 4, 5]
        metadata = [(whole / "evaluation" / f"step-{row['step']}" / "metadata.jsonl").read_text() for row in rows]
        assert len(set(metadata)) == 1  # the same noise each time
        images = [json.loads(line) for line in metadata[0].splitlines()]
        assert [image["text"] for image in images] == [PROMPTS[0], PROMPTS[1], PROMPTS[0]]
        assert [image["seed"] for image in images] == [0, 1, 2]
        pixels = [np.asarray(Image.open(whole / "evaluation" / f"step-{step}" / "00000.png")) for step in (0, 5)]
        assert pixels[0].shape == (32, 32, 3)
        assert not np.array_equal(*pixels)
        assert Image.open(whole / "evaluation" / "scores.png").format == "PNG"
        assert json.loads((whole / "summary.json").read_text())["best"] == read_best(whole)

    def test_what_is_tracked(self, whole):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(whole / "logs" / "finetune")).Reload()
        for name in (MEASURE, "found"):
            logged = [(event.step, event.value) for event in events.Scalars(f"evaluation/{name}")]
            expected = [(row["step"], row["measures"][name]["value"]) for row in read_rows(whole)]
            assert logged == [(step, pytest.approx(value)) for step, value in expected]

    def test_best_holds_the_averaged_weights_of_the_best_row(self, whole):
        rows, best = read_rows(whole), read_best(whole)
        values = [row["measures"][MEASURE]["value"] for row in rows]
        assert len(set(values)) == len(values)
        row = rows[int(np.argmax(values))]
        assert best == {"step": row["step"], "measure": MEASURE, **row["measures"][MEASURE]}
        if best["step"] == 0:
            assert not any(value.any() for value in weights(whole / "best").values())
        else:
            assert same(weights(whole / "best"), weights(whole / f"checkpoint-{best['step']}"))
        assert load_geoconv_weights(tiny_stable_diffusion(), whole / "best").patched

    def test_the_scores_are_those_of_an_evaluation(self, whole, hands):
        from geopos_diffusers.metrics.evaluation import evaluate_hands

        images = whole / "evaluation" / "step-5"
        expected = evaluate_hands(images, hands, extractors=(), num_workers=1, progress=False).folders[0].scores
        assert read_rows(whole)[-1]["measures"] == {name: asdict(interval) for name, interval in expected.items()}

    def test_training_is_the_same_without(self, whole, finetune, options):
        plain, expected = finetune("plain", **without_evaluation(options))
        assert [json.loads(line) for line in (whole / "losses.jsonl").read_text().splitlines()] == expected
        state = Path("checkpoint-5", "training_state")
        for file in ("weights", "ema", "optimizer", "random_states"):
            first, second = (load_file(folder / state / f"{file}.safetensors") for folder in (plain, whole))
            assert same(first, second), file
        assert same(weights(plain / "final"), weights(whole / "final"))
        assert not (plain / "evaluation").exists()

    def test_the_first_of_equal_ones_stays(self, finetune, options, capsys):
        short = {"evaluation_measure": "too_many_hands", "max_train_steps": 1}
        folder, _ = finetune("equal", **options | short)
        assert [row["measures"]["too_many_hands"]["value"] for row in read_rows(folder)] == [0.0] * 2
        assert read_best(folder)["step"] == 0
        expected = "best of 2 evaluations: step 0, more hands than asked for 0.000 [0.000, 0.000]"
        assert expected in capsys.readouterr().out

    def test_a_measure_without_a_value_keeps_nothing(self, finetune, options, capsys):
        folder, _ = finetune("none", **options | {"evaluation_measure": "count_error", "max_train_steps": 1})
        assert read_rows(folder)[-1]["measures"]["count_error"] == {"value": None, "low": None, "high": None}
        assert not (folder / "best").exists()
        assert "no evaluation had a value of count_error, so there is no" in capsys.readouterr().out

    @pytest.mark.parametrize(("measure", "better", "worse"), [("found", 0.4, 0.2), ("count_error", 0.2, 0.4)])
    def test_what_is_better_is_known_of_each_measure(self, hands, measure, better, worse):
        from geopos_diffusers.finetuning.hand_scores import HandScorer

        scorer = HandScorer(hands, measure, PROMPTS)
        assert scorer.is_better(better, worse)
        assert not scorer.is_better(worse, better)
        assert not scorer.is_better(better, better)

    def test_a_dry_run_scores_nothing(self, finetune, options, tmp_path):
        folder, _ = finetune("dry", **options | {"dry_run": True})
        assert not folder.exists()

    @pytest.mark.slow
    def test_two_processes(self, model, images, options, tmp_path):
        """The first evaluates; both train as they do without."""
        runs = {"plain": without_evaluation(options), "scored": options}
        for name, values in runs.items():
            command = [sys.executable, "-m", "geopos_diffusers.cli.main", "train", "--cpu", "--num_processes", "2"]
            values = values | {"model": model, "dataset": images, "output": tmp_path / name, "report_to": "none"}
            command += [f"--{option}={value}" for option, value in values.items()]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-3000:]
        lines = [(tmp_path / name / "losses.jsonl").read_text() for name in runs]
        assert lines[0] == lines[1]
        assert [row["step"] for row in read_rows(tmp_path / "scored")] == [0, 2, 4, 5]
        assert same(*(weights(tmp_path / name / "final") for name in runs))


class TestResume:
    @pytest.mark.parametrize("checkpoint", [1, 4])
    def test_continues_as_if_it_had_never_stopped(self, whole, copied, finetune, options, checkpoint):
        for step in range(checkpoint + 1, 6):
            shutil.rmtree(copied / f"checkpoint-{step}")
        (copied / "evaluation" / ".step-4-abcdefgh").mkdir()  # of a killed run
        finetune("copied", **options)
        assert without_seconds(read_rows(copied)) == without_seconds(read_rows(whole))
        assert read_best(copied) == read_best(whole)
        assert same(weights(copied / "best"), weights(whole / "best"))
        names = [sorted(path.name for path in (run / "evaluation").iterdir()) for run in (copied, whole)]
        assert names[0] == names[1]

    def test_a_finished_run_stays_as_it_is(self, whole, copied, finetune, options):
        finetune("copied", **options)
        assert read_rows(copied) == read_rows(whole)
        assert read_best(copied) == read_best(whole)

    @pytest.mark.parametrize(
        ("change", "name"),
        [
            ({"evaluation_images": 4}, "images=3"),
            ({"evaluation_measure": "found"}, f'measure="{MEASURE}"'),
            ({"validation_inference_steps": 3}, "inference_steps=2"),
            ({"validation_guidance_scale": 3}, "guidance_scale=5.0"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_other_scores_are_refused(self, copied, finetune, options, change, name):
        with pytest.raises(ConfigError, match=f"the scores in .*evaluation were made with {name}; this run has"):
            finetune("copied", **options | change)

    def test_other_prompts_and_references_are_refused(self, copied, finetune, options, hands, tmp_path):
        prompts, fewer = tmp_path / "prompts.txt", tmp_path / "fewer"
        prompts.write_text("a fist\na hand\n")
        shutil.copytree(hands, fewer)
        lines = (fewer / "metadata.jsonl").read_text().splitlines(keepends=True)
        (fewer / "metadata.jsonl").write_text("".join(lines[:-1]))
        for name, value in (("prompts", prompts), ("reference", fewer)):
            with pytest.raises(ConfigError, match=f"were made with {name}="):
                finetune("copied", **options | {f"evaluation_{name}": value})

    def test_without_its_folder_a_new_curve_begins(self, copied, finetune, options):
        for step in (4, 5):
            shutil.rmtree(copied / f"checkpoint-{step}")
        shutil.rmtree(copied / "evaluation")
        finetune("copied", **options | {"evaluation_images": 4})
        assert [(row["step"], row["images"]) for row in read_rows(copied)] == [(4, 4), (5, 4)]
        assert read_best(copied)["step"] in (4, 5)
        assert (copied / "evaluation" / "scores.png").is_file()

    def test_overwrite_begins_anew(self, copied, finetune, options):
        finetune("copied", **options | {"evaluation_images": 4, "max_train_steps": 1, "overwrite": True})
        assert [(row["step"], row["images"]) for row in read_rows(copied)] == [(0, 4), (1, 4)]
        assert read_best(copied)["step"] in (0, 1)

    def test_a_damaged_best(self, copied, finetune, options):
        (copied / "best" / "best.json").write_text("{")
        with pytest.raises(DataError, match=r"best\.json is damaged: .*; remove .*best"):
            finetune("copied", **options)


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"evaluate_every": 0}, "evaluate_every must be a whole number >= 1; got 0"),
            ({"evaluation_images": 0}, "evaluation_images must be a whole number >= 1; got 0"),
            ({"evaluation_measure": "god"}, "evaluation_measure must be one of found, .*; did you mean good?"),
            ({"evaluation_prompts": "gone.txt"}, "no prompts file gone.txt"),
            ({"evaluation_reference": "gone"}, "gone is not a folder; give a folder of images"),
            ({"evaluation_measure": "joint_error"}, "evaluation_measure joint_error has no value for these prompts"),
        ],
        ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
    )
    def test_one_clear_message_before_training(self, finetune, options, tmp_path, change, message):
        with pytest.raises(GeoPosError, match=message):
            finetune("bad", **options | change)
        assert not (tmp_path / "bad" / "losses.jsonl").exists()

    @pytest.mark.parametrize("missing", ["evaluation_prompts", "evaluation_reference", "evaluate_every"])
    def test_what_needs_each_other(self, finetune, options, missing):
        options = {name: value for name, value in options.items() if name != missing}
        expected = f"evaluate_every needs {missing}"
        if missing == "evaluate_every":
            expected = "evaluation_prompts is an option of evaluate_every; give that too"
        with pytest.raises(ConfigError, match=expected):
            finetune("bad", **options)

    @pytest.mark.parametrize("text", ["", " \n\n"])
    def test_an_empty_file_of_prompts(self, finetune, options, tmp_path, text):
        (tmp_path / "prompts.txt").write_text(text)
        with pytest.raises(DataError, match=r"prompts\.txt is empty; give one prompt a line"):
            finetune("bad", **options | {"evaluation_prompts": tmp_path / "prompts.txt"})

    def test_prompts_that_say_nothing_of_fingers(self, finetune, options, tmp_path):
        (tmp_path / "prompts.txt").write_text("a photo of a hand")
        change = {"evaluation_measure": "found_and_right", "evaluation_prompts": tmp_path / "prompts.txt"}
        with pytest.raises(ConfigError, match="found_and_right has no value for these prompts and this reference"):
            finetune("bad", **options | change)

    def test_a_reference_without_hands(self, finetune, options, images, tmp_path):
        with pytest.raises(DataError, match="no hand was found in the 10 images of the reference"):
            finetune("bad", **options | {"evaluation_reference": images})
        assert not (tmp_path / "bad" / "losses.jsonl").exists()

    def test_without_the_extra(self, finetune, options, monkeypatch):
        find = importlib.util.find_spec
        monkeypatch.setattr(optional_packages, "find_spec", lambda name: None if name == "mediapipe" else find(name))
        expected = r"evaluate_every needs the package mediapipe: pip install 'geopos-diffusers\[eval\]'"
        with pytest.raises(MissingDependencyError, match=expected):
            finetune("bad", **options)
