"""Whether geometry beats its controls: known effects, Holm's correction, effect sizes, and the answer."""

import json
from dataclasses import replace

import numpy as np
import pytest
from experiments.results import read_results
from experiments.study.comparisons import (
    IN_PART,
    NO,
    NOT_RUN,
    OTHER_WAY,
    TOO_FEW,
    YES,
    answer,
    effect_size,
    primary_comparisons,
    task_verdict,
)
from experiments.study.task_results import read_tasks
from scipy.stats import ttest_rel
from study_cases import LOSSES, values, write_task


class TestComparisons:
    def test_verdicts_of_known_effects(self, tasks):
        found = {one.pair: one.verdict for one in primary_comparisons(tasks["poses"])}
        assert found == {
            ("geometry", "bias"): YES,
            ("geometry", "LoRA r=2"): NO,
            ("LoRA r=4 + geometry", "LoRA r=4 + bias"): OTHER_WAY,
            ("whole UNet + geometry", "whole UNet"): NO,
        }

    def test_p_values_are_corrected_within_the_task(self, tasks):
        found = primary_comparisons(tasks["poses"])
        raw = [ttest_rel(*(values(name) for name in one.pair)).pvalue for one in found]
        corrected, largest = {}, 0.0
        for rank, index in enumerate(np.argsort(raw)):
            largest = max(largest, min(1.0, raw[index] * (4 - rank)))
            corrected[index] = largest
        assert [one.p for one in found] == pytest.approx([corrected[index] for index in range(4)])

    def test_a_difference_that_does_not_survive_the_correction_is_no_effect(self, tmp_path):
        # Alone, p is 0.02; of four comparisons the smallest p must be below 0.0125.
        write_task(tmp_path, "poses", LOSSES | {"bias": 0.6047, "LoRA r=4 + geometry": 0.56})
        (task,) = [task for task in read_tasks(tmp_path) if task.name == "poses"]
        first = primary_comparisons(task)[0]
        assert first.estimate.p < 0.05 < first.p
        assert first.verdict == NO

    def test_effect_sizes(self, tasks):
        first = primary_comparisons(tasks["poses"])[0]
        differences = values("geometry") - values("bias")
        assert first.effect_size == pytest.approx(differences.mean() / differences.std(ddof=1))
        assert effect_size([1.0, 2.0, 3.0], [0.0, 1.5, 1.0]) is None
        assert effect_size([1.0] * 5, [0.5] * 5) is None

    def test_more_is_better_for_shares(self, tmp_path):
        write_task(tmp_path, "handedness", LOSSES, primary="handedness_right")
        (task,) = [task for task in read_tasks(tmp_path) if task.name == "handedness"]
        assert [one.verdict for one in primary_comparisons(task)] == [OTHER_WAY, NO, YES, NO]

    def test_three_seeds_are_suggestive(self, tasks):
        found = primary_comparisons(tasks["handedness"])
        assert [one.verdict for one in found] == [TOO_FEW, NOT_RUN, NOT_RUN, NOT_RUN]
        assert found[0].text == "not compared with that of bias (suggestive, n = 3)"
        assert (found[0].effect_size, found[0].p) == (None, None)

    def test_seeds_without_the_score_are_left_out(self, tmp_path):
        file = write_task(tmp_path, "handedness", LOSSES, primary="handedness_right")
        results = read_results(file, "study")
        for run in results["runs"]:
            if (run["variant"], run["seed"]) == ("bias", 12):
                del run["scores"]["handedness_right"]
        file.write_text(json.dumps(results), encoding="utf-8")
        (task,) = [task for task in read_tasks(tmp_path) if task.name == "handedness"]
        first = primary_comparisons(task)[0]
        kept = [0, 1, 3, 4]
        assert first.estimate.count == 4
        assert first.estimate.value == pytest.approx((values("geometry") - values("bias"))[kept].mean())


class TestAnswer:
    @pytest.mark.parametrize(
        ("verdicts", "expected"),
        [
            ((YES, YES), YES),
            ((YES, NOT_RUN), YES),
            ((YES, NO), IN_PART),
            ((YES, OTHER_WAY), IN_PART),
            ((NO, OTHER_WAY), NO),
            ((OTHER_WAY, TOO_FEW), OTHER_WAY),
            ((TOO_FEW, NOT_RUN), TOO_FEW),
            ((NOT_RUN, NOT_RUN), NOT_RUN),
        ],
    )
    def test_of_a_task(self, tasks, verdicts, expected):
        comparisons = [
            replace(one, verdict=verdict)
            for one, verdict in zip(primary_comparisons(tasks["poses"]), verdicts, strict=False)
        ]
        assert task_verdict(comparisons) == expected

    def test_follows_the_numbers(self, tmp_path):
        better = LOSSES | {"LoRA r=2": 0.62, "LoRA r=4 + geometry": 0.54, "whole UNet + geometry": 0.47}
        write_task(tmp_path, "sizes", better, primary="one_hand")
        write_task(tmp_path, "photographs", better)
        write_task(tmp_path, "poses", LOSSES | {"bias": 0.6, "LoRA r=2": 0.6, "LoRA r=4 + geometry": 0.56})
        found = {task.name: primary_comparisons(task) for task in read_tasks(tmp_path)}
        assert answer(found) == (
            "By the primary score of each task, geometry helps with photographs (better in 4 of 4 comparisons); does "
            "not help with poses (better in 0 of 4 comparisons); does worse than its controls with sizes (better in 0 "
            "of 4 comparisons, worse in 4); was not run yet with enlarged, handedness, circular, place and decoding."
        )
