"""Repairing hands with real pipelines: what changes, what repeats, and that the judge's best is kept."""

import numpy as np
import pytest
import tiny_models
from PIL import Image
from trained_models import draw_geometry

from geopos_diffusers import GeoConvConfig, apply_geoconv
from geopos_diffusers.errors import ConfigError, DataError
from geopos_diffusers.repair.inpainting import inpaint, inpainting_pipeline, match_colours, region_size, share_of_hand
from geopos_diffusers.repair.options import RepairOptions
from geopos_diffusers.repair.repairing import HandScore, choose, repair_image, score_hand

TINY = {
    "tiny_stable_diffusion": "StableDiffusionInpaintPipeline",
    "tiny_stable_diffusion_xl": "StableDiffusionXLInpaintPipeline",
    "tiny_inpainting": "StableDiffusionInpaintPipeline",
    "tiny_inpainting_xl": "StableDiffusionXLInpaintPipeline",
    "tiny_stable_diffusion_3": "StableDiffusion3InpaintPipeline",
}
BOX = (0.3, 0.25, 0.7, 0.6)
QUICK = RepairOptions(candidates=2, steps=2, strength=0.9, allow_worse=True, seed=3)
PROMPT = "a photo of the palm of a left hand, an open hand"


def outside(image: Image.Image, repair) -> np.ndarray:
    """True for the pixels of an image [H, W] that no mask covers."""
    kept = np.ones((image.height, image.width), dtype=bool)
    for hand in repair.hands:
        left, upper, right, lower = hand.region.mask
        kept[upper:lower, left:right] = False
    return kept


def noise(width: int = 90, height: int = 70) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8))


class TestPipelines:
    @pytest.mark.parametrize("name", TINY)
    def test_every_pixel_outside_the_mask_stays(self, name, judge):
        pipe = getattr(tiny_models, name)()
        assert type(inpainting_pipeline(pipe)).__name__ == TINY[name]
        image = noise()
        repair = repair_image(pipe, image, [BOX], "a hand", QUICK, judge=judge)
        before, after, kept = np.asarray(image), np.asarray(repair.image), outside(image, repair)
        assert (after[kept] == before[kept]).all()
        assert (after[~kept] != before[~kept]).mean() > 0.5
        again = repair_image(pipe, image, [BOX], "a hand", QUICK, judge=judge)
        assert (np.asarray(again.image) == after).all()
        assert [c.score for c in again.hands[0].candidates] == [c.score for c in repair.hands[0].candidates]
        first, second = (np.asarray(candidate.square).astype(int) for candidate in repair.hands[0].candidates)
        assert np.abs(first - second).max() > 8  # another seed, another hand

    def test_a_variant_depends_on_its_seed_alone(self, judge):
        pipe = tiny_models.tiny_stable_diffusion()
        options = RepairOptions(candidates=3, steps=2, batch_size=2, seed=3)
        all_three = repair_image(pipe, noise(), [BOX], "a hand", options, judge=judge).hands[0].candidates
        options = RepairOptions(candidates=1, steps=2, seed=5)
        (alone,) = repair_image(pipe, noise(), [BOX], "a hand", options, judge=judge).hands[0].candidates
        assert [candidate.seed for candidate in all_three] == [3, 4, 5]
        assert alone.seed == 5
        difference = np.asarray(all_three[2].square).astype(int) - np.asarray(alone.square)
        assert np.abs(difference).max() <= 1

    def test_a_model_without_an_inpainting_pipeline_is_refused(self):
        with pytest.raises(ConfigError, match="SanaPipeline cannot inpaint: diffusers has no inpainting pipeline"):
            repair_image(tiny_models.tiny_sana(), noise(), [BOX])

    def test_what_the_pipeline_refuses_is_said(self):
        made, square = inpainting_pipeline(tiny_models.tiny_stable_diffusion()), noise(33, 33)
        with pytest.raises(ConfigError, match="StableDiffusionInpaintPipeline cannot inpaint with these options"):
            next(inpaint(made, square, Image.new("L", (33, 33), 255), BOX, "a hand", RepairOptions(steps=2)))

    @pytest.mark.parametrize(
        ("name", "multiple"),
        [("tiny_stable_diffusion", 8), ("tiny_inpainting_xl", 8), ("tiny_stable_diffusion_3", 8), ("hands64", 4)],
    )
    def test_sizes_that_it_cannot_make_are_refused_before_hands_are_looked_for(self, name, multiple, packaged, judge):
        pipe = packaged if name == "hands64" else getattr(tiny_models, name)()
        for size in (10, 33, 65, 66):
            with pytest.raises(ConfigError, match=rf"size must be a multiple of {multiple} pixels for .*; got {size}"):
                repair_image(pipe, noise(), options=RepairOptions(size=size), judge=judge)

    @pytest.mark.parametrize("size", [8, 12, 68])
    def test_sizes_that_the_packaged_model_can_make(self, size, packaged, judge):
        options = RepairOptions(candidates=1, steps=2, size=size, allow_worse=True)
        repair = repair_image(packaged, noise(), [BOX], "a hand", options, judge=judge)
        assert (np.asarray(repair.image) != np.asarray(noise())).any()

    def test_another_size_than_the_square_is_no_variant(self, packaged):
        """The image-to-image pipeline rounds without a word."""
        made, mask = inpainting_pipeline(packaged), Image.new("L", (66, 66), 255)
        with pytest.raises(ConfigError, match="draws 64x64 pixels for 66x66; give a size that it can draw"):
            next(inpaint(made, noise(66, 66), mask, BOX, "a hand", RepairOptions(steps=2)))

    def test_the_original_latents_come_back_around_the_mask(self, packaged, hand):
        """Latents of eight channels, which diffusers' inpainting pipeline refuses: the kept part is the image's own,
        but for the autoencoder's error."""
        made = inpainting_pipeline(packaged)
        assert type(made).__name__ == "StableDiffusionImg2ImgPipeline"
        assert region_size(made) == 64
        square = hand.convert("RGB").resize((64, 64))
        mask = Image.new("L", (64, 64))
        mask.paste(255, (32, 0, 64, 64))
        options = RepairOptions(candidates=2, steps=4, strength=1.0, seed=1)
        for _, drawn in inpaint(made, square, mask, (0.5, 0.0, 1.0, 1.0), PROMPT, options):
            error = np.abs(np.asarray(drawn).astype(int) - np.asarray(square)).mean((0, 2))
            assert error[:16].max() < 4
            assert error[32:].max() > 15


class TestFrames:
    def test_the_hands_box_is_the_frame(self, judge):
        """With an adapter that was trained with frames, another box within the same square and mask, another image."""
        pipe = tiny_models.tiny_stable_diffusion()
        apply_geoconv(pipe, GeoConvConfig(default_frame=(0.25, 0.3, 0.75, 0.7)))
        assert share_of_hand(pipe) == pytest.approx(0.5)
        made, square, mask = inpainting_pipeline(pipe), noise(32, 32), Image.new("L", (32, 32), 255)
        options = RepairOptions(candidates=2, steps=2, strength=1.0)

        def drawn(frame) -> np.ndarray:
            return np.stack([np.asarray(image) for _, image in inpaint(made, square, mask, frame, "a hand", options)])

        assert (drawn((0.1, 0.1, 0.4, 0.4)) == drawn((0.5, 0.5, 0.9, 0.9))).all()  # nothing is trained yet
        draw_geometry(pipe, size=1.0)
        here, there = drawn((0.1, 0.1, 0.4, 0.4)).astype(int), drawn((0.5, 0.5, 0.9, 0.9)).astype(int)
        assert np.abs(here - there).mean() > 2
        assert (drawn((0.1, 0.1, 0.4, 0.4)) == here).all()

    def test_an_adapter_without_frames_gets_none(self, judge):
        pipe = tiny_models.tiny_stable_diffusion()
        apply_geoconv(pipe)
        draw_geometry(pipe)
        assert share_of_hand(pipe) == 0.6
        assert len(repair_image(pipe, noise(), [BOX], "a hand", QUICK, judge=judge).hands[0].candidates) == 2


class TestChoice:
    def test_the_best_is_chosen(self):
        before = HandScore(0.9, 0.4)
        scores = [HandScore(1.0, 0.2), HandScore(0.1, 0.99), HandScore(0.8, 0.6), HandScore(0.9, 0.6)]
        assert choose(before, scores) == 2  # not the second, which shows no hand; the first of equals
        assert choose(HandScore(1.0, 0.6), scores) is None
        assert choose(HandScore(1.0, 0.7), scores, allow_worse=True) == 2
        assert choose(HandScore(0.3, 1.0), scores) == 2  # any hand is better than none

    def test_a_hand_with_the_wrong_number_of_fingers_is_worse(self):
        before = HandScore(0.9, 0.8, 0.1)
        assert choose(before, [HandScore(0.9, 0.9, 0.2), HandScore(0.9, 0.5, 0.8)]) == 1
        assert choose(before, [HandScore(0.9, 0.9, 0.05), HandScore(0.1, 1.0, 1.0)]) is None

    @pytest.mark.parametrize(
        ("prompt", "any_number", "fingers"),
        [(PROMPT, False, 5), (PROMPT, True, None), ("a hand", False, None), ("two fingers up", False, 2)],
    )
    def test_the_prompt_says_the_number(self, judge, hand, box, prompt, any_number, fingers):
        pipe, options = tiny_models.tiny_stable_diffusion(), RepairOptions(candidates=1, steps=2, any_number=any_number)
        (done,) = repair_image(pipe, hand, [box], prompt, options, judge=judge).hands
        assert done.before == score_hand(judge, done.square, fingers)
        assert (done.before.number_right == 1) == (fingers is None)
        assert done.before.good == done.before.well_formed * done.before.number_right

    def test_a_spoiled_hand_becomes_the_best_of_its_variants(self, packaged, judge, hand, box):
        options = RepairOptions(candidates=3, steps=8, guidance_scale=2.5, seed=1)
        repair = repair_image(packaged, hand, [box], PROMPT, options, judge=judge)
        (done,) = repair.hands
        scores = [candidate.score for candidate in done.candidates]
        assert done.chosen is not None
        assert done.after == max(scores, key=lambda score: score.rank)
        assert done.after.good > done.before.good + 0.1
        assert done.after.seen
        # What is in the image is what was judged.
        region = done.region
        square = repair.image.crop((region.left, region.top, region.left + region.side, region.top + region.side))
        assert score_hand(judge, square, 5) == done.after
        kept = outside(hand, repair)
        assert (np.asarray(repair.image)[kept] == np.asarray(hand.convert("RGB"))[kept]).all()

    def test_a_hand_that_is_better_than_its_variants_stays(self, judge, hand, box):
        """Random weights draw no hands."""
        pipe = tiny_models.tiny_stable_diffusion()
        kept = repair_image(pipe, hand, [box], PROMPT, RepairOptions(candidates=2, steps=2, strength=1.0), judge=judge)
        assert kept.hands[0].chosen is None
        assert kept.hands[0].after == kept.hands[0].before
        assert (np.asarray(kept.image) == np.asarray(hand.convert("RGB"))).all()
        options = RepairOptions(candidates=2, steps=2, strength=1.0, allow_worse=True)
        worse = repair_image(pipe, hand, [box], PROMPT, options, judge=judge)
        assert worse.hands[0].chosen is not None
        assert worse.hands[0].after.rank < kept.hands[0].before.rank

    def test_hands_that_are_good_enough_are_left_alone(self, judge, hand, box):
        pipe = tiny_models.tiny_stable_diffusion()
        score = score_hand(judge, repair_image(pipe, hand, [box], options=QUICK, judge=judge).hands[0].square)
        for threshold, tried in ((score.well_formed, 0), (min(score.well_formed + 0.01, 1.0), 2)):
            options = RepairOptions(candidates=2, steps=2, min_score=threshold)
            (done,) = repair_image(pipe, hand, [box], options=options, judge=judge).hands
            assert len(done.candidates) == tried

    def test_several_hands_are_repaired_one_after_the_other(self, judge):
        image, calls = noise(200, 100), []
        boxes = [(0.1, 0.3, 0.25, 0.7), (0.7, 0.3, 0.9, 0.7)]
        pipe = tiny_models.tiny_stable_diffusion()
        repair = repair_image(pipe, image, boxes, options=QUICK, judge=judge, advance=calls.append)
        assert [hand.box for hand in repair.hands] == boxes
        assert calls == [1] * 4
        changed = (np.asarray(repair.image) != np.asarray(image)).any(2)
        kept = outside(image, repair)
        assert not changed[kept].any()
        assert changed[:, :60].any()
        assert changed[:, 140:].any()


def test_hands_are_found_where_no_boxes_are_given(judge, hand, box):
    (done,) = repair_image(tiny_models.tiny_stable_diffusion(), hand, options=QUICK, judge=judge).hands
    assert np.abs(np.array(done.box) - box).max() < 0.12
    with pytest.raises(DataError, match="no hand is found in the image"):
        repair_image(tiny_models.tiny_stable_diffusion(), noise(), judge=judge)


def test_colours_are_matched_on_the_kept_part():
    square, mask = Image.new("RGB", (8, 8), (100, 100, 100)), Image.new("L", (8, 8))
    mask.paste(255, (0, 0, 4, 8))
    drawn = Image.new("RGB", (8, 8), (90, 104, 100))
    drawn.paste((50, 50, 50), (0, 0, 4, 8))
    matched = match_colours(drawn, square, mask)
    assert matched.getpixel((6, 6)) == (100, 100, 100)
    assert matched.getpixel((1, 1)) == (60, 46, 50)
    assert match_colours(drawn, square, Image.new("L", (8, 8), 255)) is drawn


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": 0}, "candidates must be 1 or more; got 0"),
        ({"strength": 0.0}, "strength must be above 0 and up to 1; got 0"),
        ({"strength": float("nan")}, "strength must be above 0"),
        ({"strength": 0.05, "steps": 10}, "strength 0.05 of 10 steps leaves none"),
        ({"margin": -0.1}, "margin must be between 0 and 2; got -0.1"),
        ({"share": 1.5}, "share must be between 0.1 and 1; got 1.5"),
        ({"min_score": 2.0}, "min_score must be between 0 and 1; got 2"),
        ({"seed": -1}, "seed must be between 0"),
        ({"size": 4}, "size must be between 8 and 8192 pixels; got 4"),
        ({"size": 2_000_000}, "size must be between 8 and 8192 pixels; got 2000000"),
        ({"guidance_scale": float("inf")}, "guidance_scale must be a finite number"),
    ],
)
def test_options_out_of_range_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        RepairOptions(**change)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([(0.5, 0.5, 0.4, 0.9)], "empty or reversed"),
        ([(0.5, 0.5, 1.4, 0.9)], "reaches outside the image"),
        ([(0.5, 0.5, 0.501, 0.9)], "covers less than a pixel"),
    ],
)
def test_bad_boxes_are_refused(boxes, message):
    with pytest.raises(ConfigError, match=message):
        repair_image(tiny_models.tiny_stable_diffusion(), noise(), boxes)


@pytest.mark.parametrize("mode", ["I;16", "F", "I"])
def test_images_of_more_than_eight_bits_are_refused(mode):
    with pytest.raises(DataError, match="more than 8 bits"):
        repair_image(tiny_models.tiny_stable_diffusion(), Image.new(mode, (64, 64)), [BOX])
