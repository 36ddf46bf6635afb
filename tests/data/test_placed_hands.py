"""Hands at other places than the middle, small ones, and two in one image."""

import json

import numpy as np
import pytest
from commands import refused
from PIL import Image

from geopos_diffusers.boxes import check_box
from geopos_diffusers.cli.main import main
from geopos_diffusers.data.hand_pairs import apart
from geopos_diffusers.data.hands import HandOptions, HandRenderer, render_hands
from geopos_diffusers.metrics.hand_attributes import parse_hands

SIZE = 48
ANYWHERE = {"placement": "anywhere", "scale": (0.3, 0.9)}


@pytest.fixture(scope="module")
def single():
    return list(HandRenderer(SIZE, 3, HandOptions(**ANYWHERE)).draw(0, 64))


@pytest.fixture(scope="module")
def several():
    return list(HandRenderer(SIZE, 3, HandOptions(**ANYWHERE, hands=(1, 2))).draw(0, 64))


def centres_and_sizes(boxes) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.split(np.array(boxes), 2, axis=1)
    return (low + high) / 2, high - low


class TestOneHand:
    def test_places_and_sizes_are_spread(self, single):
        centres, sizes = centres_and_sizes([hand.attributes["box"] for hand in single])
        longer = sizes.max(1)
        assert centres.min() < 0.25
        assert centres.max() > 0.75
        assert (np.abs(centres.mean(0) - 0.5) < 0.08).all()
        # A fist is not blown up to an open hand's size.
        assert 0.15 < longer.min() < 0.4
        assert 0.7 < longer.max() <= 0.9
        # In the share of the image that its size leaves it, a hand is anywhere: the middle half of it holds half.
        free = np.abs(centres - 0.5) / ((1 - sizes) / 2)
        assert free.max() <= 1 + 1e-3
        assert 0.38 < (free < 0.5).mean() < 0.62

    def test_boxes_are_shares_and_hold_the_key_points(self, single):
        for hand in single:
            x0, y0, x1, y1 = check_box(hand.attributes["box"])
            points = np.array(hand.attributes["keypoints"])[1:] / SIZE
            assert (points >= np.array([x0, y0]) - 1e-3).all()
            assert (points <= np.array([x1, y1]) + 1e-3).all()

    def test_arms_leave_the_image(self, single):
        """Each hand is joined to the edge by its arm, also the small ones."""
        for hand in single:
            x0, y0, x1, y1 = np.array(hand.attributes["box"]) * SIZE
            outside = hand.mask > 0
            outside[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = False
            touches_edge = min(x0, y0) < 1 or max(x1, y1) > SIZE - 1
            edge = np.concatenate([outside[0], outside[-1], outside[:, 0], outside[:, -1]])
            assert edge.any() or touches_edge

    def test_a_scale_alone_keeps_hands_near_the_middle(self):
        hands = HandRenderer(32, 3, HandOptions(scale=(0.2, 0.3))).draw(0, 32)
        centres, sizes = centres_and_sizes([hand.attributes["box"] for hand in hands])
        assert (np.abs(centres - 0.5) <= (1 - sizes) / 4 + 1e-3).all()
        assert sizes.max() <= 0.3 + 1e-3

    def test_defects_can_be_placed(self):
        hands = list(HandRenderer(32, 3, HandOptions(**ANYWHERE, defects=1.0)).draw(0, 4))
        assert not any(hand.attributes["well_formed"] for hand in hands)


class TestTwoHands:
    def test_half_of_the_images_have_two(self, several):
        numbers = [len(hand.attributes.get("boxes", [0])) for hand in several]
        assert set(numbers) == {1, 2}
        assert 20 <= numbers.count(2) <= 44

    def test_their_boxes_lie_apart_from_left_to_right(self, several):
        for hand in several:
            if "boxes" not in hand.attributes:
                continue
            first, second = (np.array(check_box(box)) for box in hand.attributes["boxes"])
            assert apart(first, second)
            assert first[0] <= second[0]
            for box, known in zip((first, second), hand.attributes["hands"], strict=True):
                points = np.array(known["keypoints"])[1:] / SIZE
                assert (points >= box[:2] - 1e-3).all()
                assert (points <= box[2:] + 1e-3).all()
                x, y = np.clip(np.array(known["keypoints"])[9].astype(int), 0, SIZE - 1)
                assert hand.mask[y, x] > 0

    def test_captions_are_true(self, several):
        pairs = [hand.attributes for hand in several if "hands" in hand.attributes]
        words = ("no", "one", "two", "three", "four", "five")
        told = 0
        for pair in pairs:
            text, sides = pair["text"], [hand["handedness"] for hand in pair["hands"]]
            assert parse_hands(text) == 2
            for side in ("left", "right"):
                if f"{side} hand" in text:
                    assert side in sides
                    assert (f"two {side} hands" in text) == (sides == [side, side])
            numbers = [f"{words[hand['fingers']]} finger" for hand in pair["hands"]]
            if "raised" in text:
                told += 1
                assert text.index(numbers[0]) <= text.rindex(numbers[1])
                for side, number in zip(sides, numbers, strict=True):
                    assert f"a {side} hand with" not in text or f"a {side} hand with {number}" in text
        assert told > len(pairs) / 4

    def test_the_same_seed_gives_the_same_images_from_any_start(self, several):
        part = list(render_hands(8, SIZE, seed=3, start=40, **ANYWHERE, hands=(1, 2)))
        for hand, (image, attributes) in zip(several[40:48], part, strict=True):
            assert hand.image.tobytes() == image.tobytes()
            assert hand.attributes == attributes

    def test_images_with_one_hand_are_those_of_one_hand_alone(self, single, several):
        same = [(one, two) for one, two in zip(single, several, strict=True) if "box" in two.attributes]
        assert all(one.image.tobytes() == two.image.tobytes() for one, two in same)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--placement", "left"], "placement: left given; known are centre, anywhere"),
        (["--scale", "0.05", "0.5"], "scale is (0.05, 0.5)"),
        (["--scale", "0.6", "0.3"], "scale is (0.6, 0.3)"),
        (["--hands", "3"], "hands: 3 given; one hand or two can be drawn"),
        (["--hands", "2"], "two hands need a scale that begins at 0.5 or less"),
        (["--hands", "1", "2", "--scale", "0.3", "0.5", "--defects", "0.5"], "defects are drawn on one hand"),
        (["--scale", "0.3", "0.5", "--fill", "0.4", "0.5"], "give --fill or --scale, not both"),
    ],
)
def test_bad_options_are_named(tmp_path, capsys, options, message):
    common = ["data", "hands", "--num-images", "2", "--output", str(tmp_path / "out")]
    assert message in refused(capsys, *common, *options)
    assert not (tmp_path / "out").exists()


def test_the_command_writes_them(tmp_path):
    options = ["--num-images", "6", "--size", "32", "--quiet", "--placement", "anywhere", "--scale", "0.3", "0.5"]
    options += ["--hands", "2", "--conditioning", "skeleton", "depth", "--output", str(tmp_path / "out")]
    assert main(["data", "hands", *options]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == 6
    for row in rows:
        assert len(row["boxes"]) == len(row["hands"]) == 2
        skeleton = np.asarray(Image.open(tmp_path / "out" / row["skeleton_file_name"])).max(2)
        for x0, y0, x1, y1 in np.round(np.array(row["boxes"]) * 32).astype(int):
            assert skeleton[y0:y1, x0:x1].max() > 100
