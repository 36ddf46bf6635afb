"""The study's runs: what is measured, and what is taken up from results files."""

import json
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_stable_diffusion

from geopos_diffusers.data.hands import render_hands
from geopos_diffusers.errors import DataError

measuring = import_module("experiments.study.measuring")
places = import_module("experiments.frames.places")
study_arms = import_module("experiments.study.arms")
tasks = import_module("experiments.study.tasks")
RESULTS = Path(__file__).parents[3] / "docs" / "results"


class TestArms:
    def test_comparisons_and_tasks_name_arms(self):
        named = {arm for pair in study_arms.PRIMARY for arm in pair}
        named |= {arm for task in tasks.TASKS.values() for arm in task.arms}
        assert named <= {*study_arms.ARMS}

    def test_pilots_name_arms_and_their_best_rates(self):
        """Those whose results are in the repository."""
        run = import_module("experiments.study.run")
        found = run.pilot_variants(RESULTS / "trained_parts.json")
        assert {*found} == {"bias", "geometry", "taps", *study_arms.PILOT_NAMES} - {"LoRA r=2"}
        assert found["LoRA r=4 + geometry"]["best_rate"] == 0.32
        assert found["geometry"]["options"] == study_arms.ARMS["geometry"].options
        assert {one["pilot"] for one in found.values()} == {"trained_parts"}
        assert {*run.pilot_variants(RESULTS / "text_to_image_photographs.json")} == {
            "bias", "geometry", "LoRA r=2", "whole UNet"
        }  # fmt: skip
        with pytest.raises(DataError, match="must hold"):
            run.pilot_variants(RESULTS / "paper_depth.json")

    def test_an_arm_comes_after_that_beside_which_it_stands(self):
        names = [*study_arms.ARMS]
        for name, arm in study_arms.ARMS.items():
            assert arm.beside is None or names.index(arm.beside) < names.index(name)


class TestMeasures:
    def test_parts_of_a_silhouette(self):
        pixels = np.full((64, 64, 3), (20, 120, 60), np.uint8)
        pixels[40:, 10:20] = pixels[30:, 40:56] = (200, 160, 140)
        pixels[5, 5:12] = (200, 160, 140)  # too small to count
        assert places.silhouette_parts(Image.fromarray(pixels)) == 2
        assert places.silhouette_parts(Image.new("RGB", (64, 64), "teal")) == 0

    def test_rendered_hands_are_one_part(self):
        known = {"backgrounds": "plain", "poses": "canonical", "fill": (0.7, 0.88)}
        drawn = render_hands(24, 64, 5, views=("palm", "back"), max_tilt=12, max_rotation=15, **known)
        parts = [places.silhouette_parts(image) for image, _ in drawn]
        assert parts.count(1) >= 23

    def test_losses_by_band_are_those_of_the_noise_levels(self):
        """Losses that are the levels themselves: each band has its middle."""
        levels = measuring.spread_levels(400, 1000, torch.Generator().manual_seed(0))
        found = measuring.band_losses(levels.double().tolist(), 1000)
        assert [found[f"band {band}"] for band in range(4)] == pytest.approx([123.5, 373.5, 623.5, 873.5])
        assert np.mean([*found.values()]) == pytest.approx(levels.double().mean().item())

    @pytest.mark.parametrize(("count", "total", "expected"), [(3, 9, [0, 3, 6]), (4, 4, [0, 1, 2, 3]), (96, 2, [0, 1])])
    def test_captions_are_spread_evenly(self, count, total, expected):
        assert measuring.evenly_spread(count, total) == expected

    def test_only_the_first_size_has_no_prefix(self):
        assert measuring.prefixed({"kid": 1}, (64, 128), True) == {"kid": 1}
        assert measuring.prefixed({"kid": 1}, (64, 128), False) == {"64x128 kid": 1}


@pytest.mark.slow
def test_runs_are_added_to_results(tmp_path, monkeypatch, capsys):
    run = import_module("experiments.study.run")
    tiny_stable_diffusion().save_pretrained(tmp_path / "model")
    words = ["poses", "--output", tmp_path / "work", "--results", tmp_path / "results", "--model", tmp_path / "model"]
    words += ["--train-images", 32, "--validation-images", 8, "--test-images", 8, "--num-samples", 4]
    words += ["--sample-steps", 2, "--max-train-steps", 3, "--mixed-precision", "no"]

    def start(*more) -> dict:
        monkeypatch.setattr(sys, "argv", ["program", *map(str, (*words, *more))])
        run.main()
        return json.loads((tmp_path / "results" / "poses.json").read_text())

    first = start("--arms", "bias", "LoRA r=4 + geometry", "--seeds", 1)
    assert [(one["variant"], one["seed"]) for one in first["runs"]] == [
        ("held-out images", 0), ("base", 0), ("bias", 1), ("LoRA r=4 + geometry", 1)
    ]  # fmt: skip
    assert {*first["variants"]} == {"bias", "LoRA r=4", "LoRA r=4 + geometry"}  # the LoRA's rate was needed
    held_out, base, bias, _ = (one["scores"] for one in first["runs"])
    assert held_out["diversity"] == pytest.approx(1)
    assert base["loss"] == base["forgetting"] == base["loss band 3"] == 1
    assert bias["loss"] != 1
    assert base["drift"] == 0 < bias["drift"]
    assert {"one_hand", "more_hands", "well_formed", "count_right", "diversity"} <= {*bias}
    assert Image.open(tmp_path / "results" / "poses.png").width > 300
    # Another machine: what was trained is gone, and only what is asked for beyond the results is made.
    (tmp_path / "work" / "poses" / "arms").rename(tmp_path / "gone")
    second = start("--arms", "bias", "--seeds", 1, 2)
    assert second["runs"][:4] == first["runs"]
    assert [(one["variant"], one["seed"]) for one in second["runs"][4:]] == [("bias", 2)]
    assert second["variants"] == first["variants"]
    assert not (tmp_path / "work" / "poses" / "arms" / "bias" / "sweep").exists()
    with pytest.raises(DataError, match="other settings"):
        start("--arms", "bias", "--data-seed", 5)
    # A pilot's rate is taken instead of a sweep.
    third = start("--arms", "geometry", "--seeds", 1, "--pilot", RESULTS / "trained_parts.json")
    assert third["variants"]["geometry"]["best_rate"] == 0.3
    assert not (tmp_path / "work" / "poses" / "arms" / "geometry" / "sweep").exists()
