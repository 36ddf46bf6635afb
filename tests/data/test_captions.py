import numpy as np
import pytest

from geopos_diffusers.data.captions import describe_hand

ATTRIBUTES = {"fingers": 3, "handedness": "left", "view": "back", "tone": "dark", "background": "blue"}


def captions(count=400, **changes):
    return [describe_hand({**ATTRIBUTES, **changes}, np.random.default_rng(seed)) for seed in range(count)]


@pytest.mark.parametrize("word", ["left", "back", "dark skin", "on a blue background", "three fingers", "3 fingers"])
def test_every_attribute_is_mentioned_by_some(word):
    assert sum(word in caption for caption in captions()) > 20


def test_full_captions_name_everything():
    full = [c for c in captions() if all(word in c for word in ("left", "back", "dark skin", "blue", "finger"))]
    assert len(full) > 160


def test_many_wordings():
    assert len(set(captions())) > 40


@pytest.mark.parametrize(
    ("fingers", "words"), [(0, ("fist", "no fingers")), (5, ("open hand", "five fingers")), (1, ("one finger ",))]
)
def test_counts_have_their_own_words(fingers, words):
    texts = captions(fingers=fingers)
    for word in words:
        assert any(word in text + " " for text in texts)
    assert not any("three" in text or "3" in text for text in texts)


def test_one_finger_is_singular():
    assert not any("one fingers" in text or "1 fingers" in text for text in captions(fingers=1))


def test_gradients_are_described():
    assert any("on a background fading from blue to white" in text for text in captions(background="blue to white"))
    assert any("on an orange background" in text for text in captions(background="orange"))


def test_side_view():
    assert all("palm" not in text and "back view" not in text for text in captions(view="side"))
