"""Images of two models in pairs, and how their scores compare."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.comparison import (
    EXACT_MCNEMAR,
    FISHER,
    INDEPENDENT_BOOTSTRAP,
    PAIRED_BOOTSTRAP,
    compare,
    compare_independent,
    compare_models,
    pair_images,
)
from geopos_diffusers.metrics.hand_attributes import HandAttributes
from geopos_diffusers.metrics.image_folder import FolderImage


@dataclass(frozen=True)
class Kind:
    kind: str
    better: str


def image(name: str, text: str | None = None, seed: int | None = None) -> FolderImage:
    return FolderImage(Path(name), name, HandAttributes(), text=text, seed=seed)


def paired_names(first, second):
    pairs = pair_images(first, second)
    return [(first[one].name, second[other].name) for one, other in zip(pairs.first, pairs.second, strict=True)]


class TestPairImages:
    def test_prompt_and_seed_go_before_file_names(self):
        first = [image("0.png", "a hand", 1), image("1.png", "a fist", 2), image("2.png", "a fist", 3)]
        second = [image("0.png", "a fist", 2), image("1.png", "a hand", 1), image("2.png", "a hand", 4)]
        assert pair_images(first, second).how == "prompt and seed"
        assert paired_names(first, second) == [("0.png", "1.png"), ("1.png", "0.png")]

    def test_file_names_without_metadata(self):
        first, second = [image("a.png"), image("b.png")], [image("c.png"), image("b.png")]
        assert pair_images(first, second).how == "file name"
        assert paired_names(first, second) == [("b.png", "b.png")]

    def test_file_names_do_not_pair_other_prompts_or_seeds(self):
        first = [image("0.png", "a hand", 1), image("1.png", "a fist", 2)]
        assert len(pair_images(first, [image("0.png", "a fist"), image("1.png", "a palm")]).first) == 1
        assert pair_images(first, [image("0.png", "a fist"), image("1.png", "a palm")]).how == "prompt"
        assert paired_names(first, [image("0.png", "a hand"), image("1.png", "a palm")]) == [("0.png", "0.png")]

    def test_prompts_alone(self):
        first = [image("a0.png", "a hand", 1), image("a1.png", "a fist", 2)]
        second = [image("b0.png", "a fist", 7), image("b1.png", "an arm", 8)]
        assert pair_images(first, second).how == "prompt"
        assert paired_names(first, second) == [("a1.png", "b0.png")]

    def test_the_same_key_again_pairs_in_order(self):
        first = [image(f"a{index}.png", "a hand", 1) for index in range(3)]
        second = [image(f"b{index}.png", "a hand", 1) for index in range(2)]
        assert paired_names(first, second) == [("a0.png", "b0.png"), ("a1.png", "b1.png")]

    def test_nothing_in_common(self):
        pairs = pair_images([image("a.png")], [image("b.png")])
        assert (len(pairs.first), len(pairs.second), pairs.how) == (0, 0, "not paired")


class TestCompare:
    def test_share(self):
        first = np.array([1.0, 1, 0, 0, 0, np.nan, 1])
        second = np.array([1.0, 0, 1, 1, 1, 1, np.nan])
        result = compare(first, second, "share", "higher", 0)
        assert (result.pairs, result.wins, result.losses, result.ties) == (5, 3, 1, 1)
        assert result.difference.value == pytest.approx(0.4)
        assert (result.p, result.method) == (pytest.approx(10 / 16), EXACT_MCNEMAR)

    def test_lower_can_be_better(self):
        first, second = np.array([1.0, 2, 3, 4]), np.array([0.0, 1, 2, 5])
        result = compare(first, second, "number", "lower", 0)
        assert (result.wins, result.losses, result.ties, result.method) == (3, 1, 0, PAIRED_BOOTSTRAP)
        assert result.difference.value == pytest.approx(-0.5)
        assert compare(first, second, "number", "higher", 0).wins == 1

    def test_pairs_take_out_what_both_share(self):
        base = np.random.default_rng(0).uniform(0, 1, 200)
        result = compare(base, base + 0.01, "number", "higher", 0)
        assert result.difference.high - result.difference.low < 1e-6
        assert (result.wins, result.p) == (200, pytest.approx(0.0, abs=1e-9))
        assert compare_independent(base, base + 0.01, "number", 0).p > 0.5

    def test_numbers_hold_the_truth(self):
        generator = np.random.default_rng(1)
        held = []
        for _ in range(150):
            first = generator.normal(size=40)
            interval = compare(first, first + generator.exponential(1.0, 40), "number", "higher", 0).difference
            held.append(interval.low <= 1.0 <= interval.high)
        assert 0.88 < np.mean(held) < 0.985

    @pytest.mark.parametrize("kind", ["share", "number"])
    def test_nothing_to_compare(self, kind):
        unknown = np.array([np.nan, np.nan])
        for result in (compare(unknown, unknown, kind, "lower", 0), compare_independent(unknown, unknown, kind, 0)):
            assert (result.pairs, result.p, result.difference.value, result.difference.low) == (0, None, None, None)

    def test_one_pair_has_no_interval(self):
        result = compare(np.array([1.0]), np.array([3.0]), "number", "higher", 0)
        assert (result.difference.value, result.p, result.wins) == (2.0, None, 1)

    def test_share_of_something_else(self):
        with pytest.raises(DataError, match=r"zeros and ones; found 0\.5"):
            compare(np.array([0.5]), np.array([1.0]), "share", "higher", 0)

    def test_independent_sets_of_two_sizes(self):
        result = compare_independent(np.array([1.0, 0, 0, 0, 0, np.nan]), np.array([1.0, 1, 1]), "share", 0)
        assert (result.pairs, result.method) == (3, FISHER)
        assert result.p == pytest.approx(2 / 7 * 0.5)  # 1 of C(8, 4) / C(5, 1) tables is as extreme on either side
        assert compare_independent(np.arange(4.0), np.arange(5.0), "number", 0).method == INDEPENDENT_BOOTSTRAP


class TestCompareModels:
    @pytest.fixture
    def models(self):
        images = {name: [image(f"{index}.png", "a hand", index) for index in range(30)] for name in ("base", "lora")}
        images["other"] = [image(f"x{index}.png") for index in range(20)]
        generator = np.random.default_rng(2)
        values = {
            name: {"found": (generator.random(len(rows)) < 0.8).astype(float), "error": generator.random(len(rows))}
            for name, rows in images.items()
        }
        return images, values

    def test_every_measure_of_every_model(self, models):
        measures = {"found": Kind("share", "higher"), "error": Kind("number", "lower")}
        comparisons, notes = compare_models(*models, measures, 0)
        assert [(row.other, row.measure, row.baseline) for row in comparisons] == [
            ("lora", "found", "base"),
            ("lora", "error", "base"),
            ("other", "found", "base"),
            ("other", "error", "base"),
        ]
        assert [row.method for row in comparisons] == [EXACT_MCNEMAR, PAIRED_BOOTSTRAP, FISHER, INDEPENDENT_BOOTSTRAP]
        smallest = min(comparisons, key=lambda row: row.p)
        assert smallest.p_holm == pytest.approx(min(1.0, 4 * smallest.p))
        assert all(row.p_holm >= row.p for row in comparisons)
        assert notes[0] == "lora and base: 30 pairs of images by prompt and seed."
        assert "independent sets" in notes[1]

    def test_images_without_a_counterpart_are_counted(self, models):
        images, values = models
        images["lora"] = images["lora"][:28]
        values["lora"] = {name: rows[:28] for name, rows in values["lora"].items()}
        _, notes = compare_models(
            {name: images[name] for name in ("base", "lora")}, values, {"found": Kind("share", "higher")}, 0
        )
        assert notes == ("lora and base: 28 pairs of images by prompt and seed; no counterpart: 2 of base.",)

    def test_one_model_alone(self, models):
        images, values = models
        assert compare_models({"base": images["base"]}, values, {"found": Kind("share", "higher")}, 0) == ((), ())
