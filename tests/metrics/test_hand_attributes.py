import numpy as np
import pytest

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.hand_attributes import (
    HandAttributes,
    attributes_of_row,
    attributes_of_text,
    parse_fingers,
    parse_handedness,
    parse_hands,
    parse_tone,
    parse_view,
)

FINGERS = [
    ("a photo of the back of a left hand, three fingers raised, dark skin", 3),
    ("a hand with two raised fingers", 2),
    ("a hand holding up 4 fingers", 4),
    ("Four Fingers Up!", 4),
    ("3 fingers", 3),
    ("three-finger salute", 3),
    ("one finger pointing up", 1),
    ("one index finger up", 1),
    ("only the index finger raised", 1),
    ("two outstretched fingers", 2),
    ("three of the fingers are extended", 3),
    ("two fingers raised, three fingers folded", 2),
    ("a hand with 3 fingers extended and 2 fingers folded", 3),
    ("fingers: 3", 3),
    ("no fingers raised", 0),
    ("zero fingers raised", 0),
    ("0 fingers up", 0),
    ("all fingers folded", 0),
    ("a clenched fist", 0),
    ("the palm of a fist", 0),
    ("an open hand", 5),
    ("an open left hand", 5),
    ("a wide-open palm", 5),
    ("all five fingers spread", 5),
    ("a hand with five fingers", 5),
    ("a peace sign", 2),
    ("thumbs-up", 1),
    ("a photo of a hand signing the digit four", 4),
    ("counting to three", 3),
    ("hand showing number 4", 4),
    # What does not say how many fingers are raised.
    ("a hand", None),
    ("", None),
    ("one hand", None),
    ("two hands", None),
    ("a raised hand", None),
    ("five people in a park", None),
    ("digit 7", None),
    ("10 fingers up", None),
    ("two fingers folded", None),
    ("a hand with no fingers missing", None),
    ("three or four fingers raised", None),
    ("two fingers raised beside four fingers raised", None),
]

HANDS = [
    ("two hands", 2),
    ("both hands", 2),
    ("both of her hands raised", 2),
    ("a pair of hands", 2),
    ("a pair of clasped hands", 2),
    ("a left and a right hand", 2),
    ("a left hand and a right hand, side by side", 2),
    ("the right hand next to the left hand", 2),
    ("left and right hands", 2),
    ("two people shaking hands", 2),
    ("a firm handshake", 2),
    ("Two Open Hands, palms up", 2),
    ("three fingers on both hands", 2),
    ("three raised fists", 3),
    ("4 hands in a circle", 4),
    ("ten hands", 10),
    ("no hands", 0),
    ("a cup and no hand", 0),
    ("a hand", 1),
    ("one hand", 1),
    ("a single hand", 1),
    ("1 hand", 1),
    ("a photo of the palm of a left hand", 1),
    ("the palm of a right hand, two fingers raised", 1),
    ("a hand with five fingers", 1),
    ("a hand made of clay", 1),
    ("a hand held up", 1),
    ("a left or right hand", 1),
    ("a clenched fist", 1),
    ("an open palm", 1),
    ("a woman with a cup in one hand", 1),
    ("a hand and a handbag", 1),
    ("a left hand, the hour hand of a clock behind it", 1),
    ("three fingers raised", 1),
    ("3 fingers", 1),
    ("an open hand, a right hand, palm view", 1),
    ("a left hand, and a right hand", 2),
    ("hands", None),
    ("her hands", None),
    ("hands raised in the air", None),
    ("a hand holding a hand", None),
    ("a hand and another hand", None),
    ("two fingers raised on each hand", None),
    ("one hand or two hands", None),
    ("many hands", None),
    ("two hand gestures", None),
    ("two people with hands in their pockets", None),
    ("a second-hand shop", None),
    ("on the other hand, a cup", None),
    ("a handbag", None),
    ("a handsome man holding a handle", None),
    ("a hand-made vase", None),
    ("hand-drawn flowers on the right-hand side", None),
    ("the hands of a clock", None),
    ("a palm tree", None),
    ("children walking hand in hand", None),
    ("ten fingers", None),
    ("two fingers of whisky", None),
    ("a cat", None),
    ("", None),
]


class TestHands:
    @pytest.mark.parametrize(("text", "expected"), HANDS)
    def test_table(self, text, expected):
        assert parse_hands(text) == expected

    def test_captions_of_one_rendered_hand(self):
        captions = pytest.importorskip("geopos_diffusers.data.captions")
        generator = np.random.default_rng(1)
        for _ in range(300):
            attributes = {
                "fingers": int(generator.integers(6)),
                "handedness": str(generator.choice(["left", "right"])),
                "view": str(generator.choice(["palm", "back", "side"])),
                "tone": "medium",
                "background": "green",
            }
            caption = captions.describe_hand(attributes, generator)
            assert parse_hands(caption) == 1, caption


class TestFingers:
    @pytest.mark.parametrize(("text", "expected"), FINGERS)
    def test_table(self, text, expected):
        assert parse_fingers(text) == expected


class TestOtherAttributes:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("the back of a left hand", "back"),
            ("a left hand, back view", "back"),
            ("a hand seen from behind", "back"),
            ("the palm of a right hand, on a black background", "palm"),
            ("a right hand, palm view", "palm"),
            ("the side of a left hand", "side"),
            ("a left hand from the side", "side"),
            ("a left hand, side view", "side"),
            ("a hand on a blue background", None),
            ("a hand before a palm tree", None),
            ("the palm and the back of a hand", None),
        ],
    )
    def test_view(self, text, expected):
        assert parse_view(text) == expected

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("the back of a left hand", "left"),
            ("Right Hand", "right"),
            ("an open right hand", "right"),
            ("a left open hand", "left"),
            ("a hand to the left of a cup", None),
            ("a left and a right hand", None),
            ("a left hand holds a right hand", None),
        ],
    )
    def test_handedness(self, text, expected):
        assert parse_handedness(text) == expected

    @pytest.mark.parametrize(
        ("text", "expected"), [("dark skin", "dark"), ("a hand, medium skin, gray", "medium"), ("skin", None)]
    )
    def test_tone(self, text, expected):
        assert parse_tone(text) == expected


class TestCaptionsOfRenderedHands:
    def test_every_attribute_that_is_named_is_read_back(self):
        captions = pytest.importorskip("geopos_diffusers.data.captions")
        generator = np.random.default_rng(0)
        fully_read = 0
        for _ in range(600):
            attributes = {
                "fingers": int(generator.integers(6)),
                "handedness": str(generator.choice(["left", "right"])),
                "view": str(generator.choice(["palm", "back", "side"])),
                "tone": str(generator.choice(["light", "medium", "brown", "dark"])),
                "background": "green",
            }
            read = attributes_of_text(captions.describe_hand(attributes, generator))
            for name in ("fingers", "handedness", "view", "tone"):
                assert getattr(read, name) in (None, attributes[name])
            fully_read += None not in (read.fingers, read.handedness, read.view, read.tone)
        assert fully_read > 300


class TestRows:
    def test_keys_come_before_the_text(self):
        row = {"file_name": "a.png", "text": "an open right hand, palm view", "fingers": 3}
        assert attributes_of_row(row) == HandAttributes(3, "palm", "right", None, 1)

    def test_the_number_of_hands(self):
        assert attributes_of_row({"text": "a hand", "hands": 2}).hands == 2
        assert attributes_of_row({"text": "a hand", "hands": 0}).hands == 0
        assert attributes_of_row({"text": "a hand", "hands": None}).hands == 1

    @pytest.mark.parametrize("count", [0, 1, 2, 10])
    def test_a_list_of_hands_counts_them(self, count):
        hands = [{"fingers": 3, "handedness": "left", "keypoints": [[1.0, 2.0]] * 21}] * count
        assert attributes_of_row({"text": "a hand", "hands": hands}).hands == count

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"hands": 11}, "hands is 11; it must be a whole number from 0 to 10"),
            ({"hands": -1}, "hands is -1"),
            ({"hands": 1.5}, "hands is 1.5"),
            ({"hands": True}, "hands is True"),
            ({"hands": "two"}, "hands is 'two'"),
            ({"hands": [{}] * 11}, r"hands is \[{}, {}.*a whole number from 0 to 10, or a list of so many hands"),
            ({"hands": {"left": 1}}, "hands is {'left': 1}"),
            ({"fingers": 7}, "fingers is 7"),
            ({"fingers": "three"}, "fingers is 'three'"),
            ({"fingers": True}, "fingers is True"),
            ({"fingers": [1]}, "fingers is"),
            ({"view": "top"}, "view is 'top'"),
            ({"handedness": 1}, "handedness is 1"),
            ({"tone": 3}, "tone is 3"),
            ({"text": 5}, "text is 5"),
        ],
    )
    def test_wrong_values(self, row, message):
        with pytest.raises(DataError, match=message):
            attributes_of_row(row)

    @pytest.mark.parametrize("name", ["text", "hands", "fingers", "view", "handedness", "tone"])
    def test_long_values_are_cut(self, name):
        with pytest.raises(DataError, match=rf"{name} is \[.*; it must be") as refused:
            attributes_of_row({name: [[1.0, 2.0]] * 1000})
        assert len(str(refused.value)) < 200
