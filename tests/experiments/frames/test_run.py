"""The experiment on frames: its measures on rendered hands, its other conditions, and a run with a tiny pipeline."""

import json
import shlex
import shutil
import sys
from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_models import tiny_stable_diffusion
from trained_models import draw_geometry

from geopos_diffusers import apply_geoconv
from geopos_diffusers.data.hands import render_hands
from geopos_diffusers.errors import ConfigError, DataError
from geopos_diffusers.metrics.hand_judge import load_hand_judge
from geopos_diffusers.patching.frames import box_frames
from geopos_diffusers.patching.patched_model import frames_holder
from geopos_diffusers.training.arguments import parse_arguments

conditions = import_module("experiments.frames.box_conditions")
data = import_module("experiments.frames.data")
generalisation = import_module("experiments.frames.generalisation")
places = import_module("experiments.frames.places")
KINDS = (conditions.BoxTokens, conditions.BoxChannel)
BOXES = torch.tensor([[0.0, 0.25, 0.5, 1.0], [0.5, 0.0, 1.0, 0.5]])


@pytest.fixture(scope="module")
def hands():
    """Images and what is known of them."""
    known = {"placement": "anywhere", "scale": (0.35, 0.8), "backgrounds": "plain", "poses": "canonical"}
    drawn = render_hands(24, 64, 5, views=("palm", "back"), max_tilt=12, max_rotation=15, **known)
    return tuple(zip(*drawn, strict=True))


class TestMeasures:
    def test_rendered_hands_are_where_they_are(self, hands):
        images, rows = hands
        found = places.measure(images, rows, load_hand_judge())
        scores = places.scores(found, rows)
        assert scores["found"] == scores["silhouette_seen"] == 1
        assert scores["correlation_x"] > 0.98
        assert scores["correlation_y"] > 0.98
        assert scores["silhouette_top"] > 0.95
        assert scores["iou"] > 0.75
        assert scores["centre_error"] < 0.03
        assert scores["fingers"] > 0.85

    def test_hands_elsewhere_are_told(self, hands):
        """The boxes of other images: no correlation is left."""
        images, rows = hands
        others = [{**row, "box": rows[index - 7]["box"]} for index, row in enumerate(rows)]
        scores = places.scores(places.measure(images, others, load_hand_judge()), others)
        assert max(abs(scores[name]) for name in ("correlation_x", "correlation_y")) < 0.6
        assert scores["iou"] < 0.4
        assert scores["centre_error"] > 0.12

    def test_a_silhouette_on_a_plain_background(self):
        pixels = np.full((64, 64, 3), (20, 120, 60), np.uint8)
        pixels[16:, 30:40] = (200, 160, 140)
        x, top = places.silhouette_place(Image.fromarray(pixels), 0.5)
        assert (x, top) == pytest.approx((35 / 64, 0.25))
        assert places.silhouette_place(Image.new("RGB", (64, 64), "teal"), 0.5) == (None, None)

    def test_hands_of_other_sizes_are_compared_at_those_asked_for(self):
        """Where only large hands are right, drawing more of them wins, but not at the same sizes."""
        asked = np.linspace(0.3, 0.7, 400)
        own, larger = asked, np.concatenate([asked[::4], np.linspace(0.5, 0.7, 300)])
        right = [sizes > np.quantile(asked, 0.75) for sizes in (own, larger)]
        assert right[1].mean() > right[0].mean() + 0.1
        assert [
            places.at_sizes(values, sizes, asked) for values, sizes in zip(right, (own, larger), strict=True)
        ] == pytest.approx([0.25, 0.25])
        assert places.at_sizes(right[0][:100], own[:100], asked) is None

    def test_places_in_words(self):
        grid = [
            data.place_words((x - 0.1, y - 0.1, x + 0.1, y + 0.1)) for y in (0.2, 0.5, 0.8) for x in (0.2, 0.5, 0.8)
        ]
        words = ["top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right"]
        assert grid == words


class TestConditions:
    def test_pictures_of_boxes(self):
        drawn = conditions.box_pictures(torch.tensor([[0.0, 0.25, 0.375, 1.0]]), 4, 4)
        assert drawn.shape == (1, 1, 4, 4)
        assert drawn[0, 0, :, 0].tolist() == [0, 1, 1, 1]
        assert drawn[0, 0, 1].tolist() == [1, 0.5, 0, 0]

    @pytest.mark.parametrize("kind", KINDS)
    @torch.no_grad()
    def test_the_boxes_change_the_prediction(self, kind):
        unet, plain = (tiny_stable_diffusion().unet.eval() for _ in range(2))
        torch.manual_seed(0)
        condition = conditions.add_condition(unet, kind)
        sample, text = torch.randn(4, 4, 16, 16), torch.randn(4, 7, 16)

        def predict(boxes):
            with conditions.told(condition, boxes):
                return unet(sample, 500, encoder_hidden_states=text).sample

        if kind is conditions.BoxChannel:
            assert torch.equal(predict(BOXES.repeat(2, 1)), plain(sample, 500, encoder_hidden_states=text).sample)
            torch.nn.init.normal_(condition.layer.weight)
        doubled, swapped = predict(BOXES), predict(BOXES.flip(0))
        assert torch.equal(doubled, predict(BOXES.repeat(2, 1)))
        assert (doubled - swapped).abs().max() > 1e-4

    @pytest.mark.parametrize("kind", KINDS)
    @torch.no_grad()
    def test_guidance_compares_with_another_box(self, kind):
        """The first half of a doubled batch is told of it, and what was told before comes back."""
        unet, other = tiny_stable_diffusion().unet.eval(), (0.1, 0.2, 0.9, 0.7)
        torch.manual_seed(0)
        condition = conditions.add_condition(unet, kind)
        if kind is conditions.BoxChannel:
            torch.nn.init.normal_(condition.layer.weight)
        sample, text = torch.randn(4, 4, 16, 16), torch.randn(4, 7, 16)
        with conditions.told(condition, BOXES, other):
            guided = unet(sample, 500, encoder_hidden_states=text).sample
        with conditions.told(condition, torch.cat([torch.tensor([other, other]), BOXES])):
            assert torch.equal(guided, unet(sample, 500, encoder_hidden_states=text).sample)
        assert condition.unguided is None

    @pytest.mark.parametrize(("given", "rate"), [(["--box-learning-rate", "0.01"], 0.01), ([], 3e-4)])
    def test_a_condition_has_a_rate_of_its_own(self, given, rate):
        words = shlex.split("--model m --dataset d --output o --train full --learning-rate 3e-4 --max-train-steps 1")
        task = object.__new__(conditions.ChannelTraining)
        task.args, unet = parse_arguments(conditions.BoxArguments, [*words, *given]), tiny_stable_diffusion().unet
        condition = conditions.add_condition(unet, conditions.BoxChannel)
        task.parameters = {**dict(unet.named_parameters()), "box_condition.layer.weight": condition.layer.weight}
        whole, box = task.optimizer().param_groups
        assert [id(one) for one in box["params"]] == [id(condition.layer.weight)]
        assert [id(one) for one in whole["params"]] == [id(one) for one in unet.parameters()]
        assert (whole["peak"], box["peak"]) == (3e-4, rate)

    def test_the_mean_box_is_that_of_the_training_images(self, hands):
        """The mean over 24 images, each axis of a centre with a spread of about 0.15."""
        mean = np.mean([row["box"] for row in hands[1]], axis=0)
        assert np.abs(mean - data.MEAN_BOX).max() < 3 * 0.2 / 24**0.5

    def test_a_token_costs_what_the_geometry_does(self):
        unet = type("Unet", (), {"config": type("Config", (), {"cross_attention_dim": 192})})
        assert sum(one.numel() for one in conditions.BoxTokens(unet).parameters()) == 14_327


@pytest.mark.slow
def test_from_rendering_to_the_page(tmp_path, monkeypatch):
    run, section, figure = (import_module(f"experiments.frames.{name}") for name in ("run", "section", "figure"))
    tiny_stable_diffusion().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text('{"guidance_scale": 2.5}')
    trained_arms = ["frames, whole", "box tokens, whole", "place words, LoRA"]
    arms = [*trained_arms, "frames, whole, guided"]  # in the order of ARMS
    words = ["--output", tmp_path / "work", "--results", tmp_path / "frames.json", "--model", tmp_path / "model"]
    words += ["--train-images", 32, "--test-images", 40, "--inference-steps", 2, "--batch-size", 2, "--seeds", 1]
    monkeypatch.setattr(run, "VALIDATION_IMAGES", 8)

    def start(program, *words) -> None:
        monkeypatch.setattr(sys, "argv", ["program", *map(str, words)])
        program.main()

    start(run, *words, "--arms", *arms, "--steps", 2, 3)
    first = json.loads((tmp_path / "frames.json").read_text())
    assert [(one["variant"], one["steps"]) for one in first["runs"]] == [(arm, n) for arm in arms for n in (2, 3)]
    assert all(one["held_out_loss"] > 0 for one in first["runs"])
    trained = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")}
    assert len(trained) == len(trained_arms)
    # The same weights, drawn in another way.
    losses = {arm: [one["held_out_loss"] for one in first["runs"] if one["variant"] == arm] for arm in arms}
    assert losses[arms[3]] == losses[arms[0]] != losses[arms[1]]
    start(run, *words, "--steps", 3, "--finished-only")
    again = json.loads((tmp_path / "frames.json").read_text())
    assert again["runs"] == first["runs"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")} == trained
    # More test images, at the rates that are known, and another guidance.
    more = [*words, "--results", tmp_path / "frames_500.json", "--test-images", 44, "--rates-of", words[3]]
    start(run, *more, "--arms", "frames, whole", "frames, whole, guided, scale 4", "--steps", 3)
    longer = json.loads((tmp_path / "frames_500.json").read_text())
    assert [one["rate"] for one in longer["variants"].values()] == [first["variants"]["frames, whole"]["rate"]] * 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")} == trained
    with pytest.raises(ConfigError, match="trained with other settings"):
        start(run, *more, "--batch-size", 4)
    # Another machine: what was trained is gone, and another arm is added to the results.
    shutil.rmtree(tmp_path / "work" / "runs")
    shutil.rmtree(tmp_path / "work" / "measured")
    start(run, *words, "--arms", "frames, whole", "frames alone", "--steps", 3)
    added = json.loads((tmp_path / "frames.json").read_text())
    expected = [*trained_arms, "frames alone", arms[3]]
    assert [one["variant"] for one in added["runs"] if one["steps"] == 3] == expected
    assert [one for one in added["runs"] if one["variant"] != "frames alone"] == first["runs"]
    assert added["image_differences"] == first["image_differences"]  # nothing is known of the other arm's images
    with pytest.raises(DataError, match="other settings"):
        start(run, *words, "--sweep-steps", 1)
    # Other conditions with an adapter, which are added to.
    file, names = tmp_path / "frames_adapter.json", ["as trained", "guided, guidance 4, as trained"]
    other = ["--output", tmp_path / "work", "--results", file, "--adapter", "hands64-frames", "--test-images", 4]
    for count in (1, 2):
        start(generalisation, *other, "--inference-steps", 2, "--conditions", *names[:count])
        runs = json.loads(file.read_text())["runs"]
        assert [one["variant"] for one in runs] == names[:count]
    assert runs[0]["scores"] != runs[1]["scores"]
    # A term inside the box alone, with rates that fall.
    falling = [*words, "--results", tmp_path / "frames_cosine.json", "--test-images", 44, "--rates-of", words[3]]
    falling += ["--schedule", "cosine", "--reference", "frames, whole, windowed", "--output", tmp_path / "falling"]
    with pytest.raises(ConfigError, match="one number of --steps"):
        start(run, *falling, "--steps", 2, 3)
    compared = ["frames, whole", "box channel, biases", "box channel, LoRA r=2"]
    start(run, *falling, "--arms", "frames, whole, windowed", *compared, "--steps", 3, "--seeds", 1, 2)
    fallen = json.loads((tmp_path / "frames_cosine.json").read_text())
    assert sorted(fallen["image_differences"]["arms"]) == sorted(compared)
    runs = tmp_path / "falling" / "runs"
    summary = json.loads((runs / "frames-whole-windowed" / "seed-2" / "summary.json").read_text())
    assert summary["settings"]["lr_scheduler"] == "cosine"
    # The small parts are saved apart from the box channel, and all were trained.
    for arm, kept in (("box-channel-biases", "geoconv_weights"), ("box-channel-LoRA-r=2", "pytorch_lora_weights")):
        trained = [runs / arm / "seed-2" / "final" / f"{name}.safetensors" for name in (kept, "box_condition")]
        assert all(value.any() for file in trained for value in load_file(file).values())
    start(section, "--results", tmp_path)
    page = (tmp_path / "frames.md").read_text()
    assert "| box tokens, whole | 1 |" in page
    assert "## After 3 steps, in 44 boxes" in page
    assert "| guided, guidance 4, as trained |" in page
    assert "| frames, whole, guided, scale 4 | 1 |" in page
    assert "## With rates that fall to zero, in 44 boxes" in page
    assert "| frames, whole, windowed minus |" in page
    assert "Not run yet: image coordinates, whole; no control;" in page
    start(figure, "--output", tmp_path / "work", "--arms", *arms, "--steps", 3, "--picture", tmp_path / "frames.png")
    assert Image.open(tmp_path / "frames.png").width > 8 * 128


def centres(frames):
    return (-frames.offset / (1 + frames.stretch)).float().squeeze(1)


class TestGeneralisation:
    BOXES = np.array([[0.1, 0.2, 0.4, 0.8], [0.5, 0.1, 0.9, 0.5]])

    def test_boxes_are_scaled_within_the_image(self):
        scaled = generalisation.scaled(1.5)(self.BOXES)
        assert (scaled[:, 2:] - scaled[:, :2]) == pytest.approx(1.5 * (self.BOXES[:, 2:] - self.BOXES[:, :2]))
        assert scaled.min() >= 0
        assert scaled.max() <= 1

    def test_boxes_reach_over_the_nearer_edge(self):
        over = generalisation.beyond_the_edge(0.25)(self.BOXES)
        assert over[0] == pytest.approx([-0.075, 0.2, 0.225, 0.8])
        assert over[1] == pytest.approx([0.7, 0.1, 1.1, 0.5])
        assert generalisation.visible(over)[1] == pytest.approx([0.7, 0.1, 1.0, 0.5])

    def test_frames_are_those_of_boxes(self):
        expected = box_frames(torch.tensor(self.BOXES))
        assert torch.allclose(generalisation.frames_of(self.BOXES), expected.float())

    def test_two_boxes_lie_in_the_halves(self):
        pairs = generalisation.side_by_side(self.BOXES)
        assert pairs[0] == pytest.approx(np.array([[0.05, 0.2, 0.2, 0.8], [0.75, 0.1, 0.95, 0.5]]))
        assert pairs[1] == pytest.approx(np.array([[0.25, 0.1, 0.45, 0.5], [0.55, 0.2, 0.7, 0.8]]))

    @pytest.mark.parametrize("given", [1, 2])
    def test_so_many_boxes_are_drawn_with(self, given):
        pipe, seen = tiny_stable_diffusion(), []
        apply_geoconv(pipe)
        pipe.unet.register_forward_pre_hook(lambda *_: seen.append(centres(frames_holder(pipe.unet).frames)))
        rows = [{"text": "a hand", "box": tuple(box)} for box in self.BOXES]
        condition = generalisation.Condition(size=(32, 64), boxes_given=given)
        images = generalisation.draw(pipe, rows, condition, 1, 2.0)
        assert [image.size for image in images] == [(64, 32)] * 2
        expected = generalisation.frames_of(generalisation.side_by_side(self.BOXES)[:, :given])[:, :, 0].squeeze(1)
        torch.testing.assert_close(seen, [expected], rtol=0, atol=1e-6)

    def test_halves_are_judged_alone(self, hands):
        """Rendered hands side by side are all found where they are; without the right ones, half of them."""
        drawn, rows = hands
        found = []
        for right in (True, False):
            wide = [Image.new("RGB", (128, 64), "teal") for _ in drawn]
            for index, image in enumerate(wide):
                image.paste(drawn[index], (0, 0))
                if right:
                    image.paste(drawn[index - 1], (64, 0))
            found.append(generalisation.half_scores(wide, rows, load_hand_judge()))
        both, left = found
        assert both["left_found"] == both["right_found"] == left["left_found"] == 1
        assert both["iou"] > 0.6
        assert left["right_found"] < 0.2

    def test_guided_boxes_change_what_is_drawn(self):
        pipe, rows = tiny_stable_diffusion(), [{"text": "a hand", "box": tuple(box)} for box in self.BOXES]
        apply_geoconv(pipe)
        draw_geometry(pipe.unet)
        images = [
            np.stack(generalisation.draw(pipe, rows, generalisation.Condition(guided=guided), 2, 4.0)).astype(int)
            for guided in (True, False)
        ]
        assert np.abs(images[0] - images[1]).max() > 8

    @pytest.mark.parametrize(("share", "first"), [(1 / 4, 1), (1 / 2, 2)])
    def test_boxes_move_while_drawing(self, share, first):
        """The denoiser sees the mirrored boxes for a share of the steps, then the boxes themselves."""
        pipe = tiny_stable_diffusion()
        pipe.set_progress_bar_config(disable=True)
        apply_geoconv(pipe)
        rows = [{"text": "a hand", "box": tuple(box)} for box in self.BOXES]
        seen = []
        unet = pipe.unet
        unet.register_forward_pre_hook(lambda *_: seen.append(centres(frames_holder(unet).frames)))
        condition = generalisation.Condition(generalisation.mirrored, moved_after=share)
        images = generalisation.draw(pipe, rows, condition, 4, 2.0)
        assert len(images) == 2
        asked = generalisation.frames_of(self.BOXES)[:, 0]
        assert [torch.allclose(one, asked, atol=1e-6) for one in seen] == [False] * first + [True] * (4 - first)
        assert all(torch.allclose(one, -asked, atol=1e-6) for one in seen[:first])
